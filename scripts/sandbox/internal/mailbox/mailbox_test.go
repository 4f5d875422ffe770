package mailbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"testing"
	"time"

	"github.com/wneessen/go-mail"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bundle struct {
	box    *Mailbox
	faults *fault.Set
	client *mail.Client
}

func setup(t *testing.T) *bundle {
	t.Helper()
	box, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	faults := &fault.Set{}
	done := make(chan error, 1)
	go func() { done <- box.Serve(ctx, l, faults, zap.NewNop()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = box.Close()
	})
	addr := l.Addr().(*net.TCPAddr)
	client, err := mail.NewClient("127.0.0.1", mail.WithPort(addr.Port), mail.WithTLSPolicy(mail.NoTLS), mail.WithTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return &bundle{box, faults, client}
}

func (b *bundle) send(t *testing.T, to, subject, text string) error {
	t.Helper()
	m := mail.NewMsg()
	if err := errors.Join(m.From("shop@example.com"), m.To(to)); err != nil {
		t.Fatal(err)
	}
	m.SetMessageIDWithValue("id-1@waybill")
	m.Subject(subject)
	m.SetBodyString(mail.TypeTextPlain, text)
	return b.client.DialAndSendWithContext(t.Context(), m)
}

func TestMailCanBeRead(t *testing.T) {
	b := setup(t)
	text := "Größe: 5 €\nA line that is far longer than the seventy-six characters that quoted-printable allows in one line.\n"
	if err := b.send(t, "a@example.com", "Ihre Bestellung – größer", text); err != nil {
		t.Fatal(err)
	}
	got, last := b.box.Read("A@example.com", 0, 10)
	if len(got) != 1 || last != 1 {
		t.Fatalf("%d messages, last %d; want one", len(got), last)
	}
	m := got[0]
	if m.Subject != "Ihre Bestellung – größer" || m.Text != text || m.MessageID != "id-1@waybill" || m.From != "shop@example.com" {
		t.Errorf("read %+v", m)
	}
	if got, _ := b.box.Read("b@example.com", 0, 10); len(got) != 0 {
		t.Errorf("b@example.com reads %d messages of others", len(got))
	}
}

func TestMailFaults(t *testing.T) {
	b := setup(t)
	b.faults.Add(fault.Rule{Target: fault.Mail, Match: "a@", Status: 451, Count: 1})
	b.faults.Add(fault.Rule{Target: fault.Mail, Match: "a@", Status: 550, Count: 1})
	b.faults.Add(fault.Rule{Target: fault.Mail, Match: "a@", Status: 451, AfterEffect: true, Count: 1})
	for i, want := range []struct{ code, kept int }{{451, 0}, {550, 0}, {451, 1}, {0, 2}} {
		err := b.send(t, "a@example.com", "s", "t")
		var p *textproto.Error
		code := 0
		if errors.As(err, &p) {
			code = p.Code
		} else if e := new(mail.SendError); errors.As(err, &e) {
			code = e.ErrorCode()
		}
		_, kept := b.box.Read("", 0, 10)
		if code != want.code || kept != int64(want.kept) {
			t.Errorf("mail %d: answer %d (%v) with %d kept, want %d with %d", i+1, code, err, kept, want.code, want.kept)
		}
	}
}

func TestMailSurvivesARestartAndStaysBounded(t *testing.T) {
	dir := t.TempDir()
	box, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := string(make([]byte, 500)) // six bytes each in JSON: the files turn
	const n = keep + 25
	for i := range n {
		if err := box.Put(Message{To: []string{fmt.Sprintf("%d@example.com", i+1)}, Text: long}); err != nil {
			t.Fatal(err)
		}
	}
	_ = box.Close()
	box, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	got, last := box.Read("", n-3, 100)
	if last != n || len(got) != 3 {
		t.Fatalf("after the restart: last %d (want %d), %d messages behind %d (want 3)", last, n, len(got), n-3)
	}
	if got, _ := box.Read("1@example.com", 0, 1); len(got) != 0 {
		t.Error("the oldest message is still there")
	}
	if err := box.Put(Message{}); err != nil {
		t.Fatal(err)
	}
	if _, last := box.Read("", 0, 1); last != n+1 {
		t.Errorf("the number after the restart is %d, want %d", last, n+1)
	}
}
