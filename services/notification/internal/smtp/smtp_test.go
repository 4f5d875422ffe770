package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/services/notification/internal/notice"
	"github.com/waybill-dev/waybill/services/notification/internal/smtp"
)

// server is a mail server that answers recipients by their local part: 550, 451, 421, silent, after (451 once it has the message).
type server struct {
	addr string
	mu   sync.Mutex
	got  []*mail.Message
	hold chan struct{}
}

func start(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), hold: make(chan struct{})}
	srv := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &session{server: s}, nil }))
	srv.Domain = "localhost"
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		close(s.hold)
		_ = srv.Close()
		<-done
	})
	return s
}

type session struct {
	*server
	after bool
}

func (s *session) Reset()                                 { s.after = false }
func (s *session) Logout() error                          { return nil }
func (s *session) Mail(string, *gosmtp.MailOptions) error { return nil }
func (s *session) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	switch local, _, _ := strings.Cut(to, "@"); local {
	case "550":
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no " + to + " here"}
	case "451":
		return &gosmtp.SMTPError{Code: 451, Message: "greylisted " + to}
	case "421":
		return &gosmtp.SMTPError{Code: 421, Message: "bye"}
	case "silent":
		<-s.hold
	case "after":
		s.after = true
	}
	return nil
}

func (s *session) Data(r io.Reader) error {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, m.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m)
	if s.after {
		return &gosmtp.SMTPError{Code: 451, Message: "as asked for"}
	}
	return nil
}

func mailer(t *testing.T, addr string) *smtp.Mailer {
	t.Helper()
	m, err := smtp.New(smtp.Options{Addr: addr, TLS: "opportunistic", From: "waybill <orders@waybill.example>"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func to(recipients ...string) []notice.Notice {
	var ns []notice.Notice
	for i, r := range recipients {
		ns = append(ns, notice.Notice{
			EventID: uuid.UUID{15: byte(i + 1)}, Channel: notice.Email, OrderID: "o-1", Recipient: r, Subject: "Größe", Text: "Dear customer,\n",
		})
	}
	return ns
}

// describe writes outcomes as permanent/broken/text, "ok" for none.
func describe(errs []error) (out []string) {
	for _, err := range errs {
		var f *smtp.Failure
		switch {
		case err == nil:
			out = append(out, "ok")
		case errors.As(err, &f):
			out = append(out, fmt.Sprintf("%t/%t/%s", f.Permanent, f.Broken, f))
		default:
			out = append(out, err.Error())
		}
	}
	return out
}

func TestSend(t *testing.T) {
	s := start(t)
	m := mailer(t, s.addr)
	got := describe(m.Send(t.Context(), to("a@example.com", "550@example.com", "451@example.com", "nonsense", "after@example.com", "b@example.com")))
	want := []string{
		"ok", "true/false/the mail server answered 550 5.1.1", "false/false/the mail server answered 451 4.0.0",
		"true/false/the address is not valid", "false/false/the mail server answered 451 4.0.0", "ok",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("message %d: %s, want %s", i+1, got[i], want[i])
		}
	}
	if len(s.got) != 3 {
		t.Fatalf("the server has %d messages, want 3", len(s.got))
	}
	h := s.got[0].Header
	if id := h.Get("Message-Id"); id != "<00000000-0000-0000-0000-000000000001.email@waybill.example>" {
		t.Errorf("Message-ID %s", id)
	}
	if from, to := h.Get("From"), h.Get("To"); !strings.Contains(from, "orders@waybill.example") || to != "<a@example.com>" {
		t.Errorf("From %s, To %s", from, to)
	}
	if h.Get("Auto-Submitted") != "auto-generated" || h.Get("Date") == "" {
		t.Errorf("headers %v", h)
	}
}

func TestABrokenConnectionEndsTheBatch(t *testing.T) {
	s := start(t)
	m := mailer(t, s.addr)
	got := describe(m.Send(t.Context(), to("a@example.com", "421@example.com", "b@example.com")))
	if got[0] != "ok" || !strings.HasPrefix(got[1], "false/true/") || got[2] != got[1] {
		t.Errorf("got %q", got)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	got = describe(mailer(t, nobody.Addr().String()).Send(t.Context(), to("a@example.com", "b@example.com")))
	if got[0] != "false/true/the mail server cannot be reached: dial" || got[1] != got[0] {
		t.Errorf("without a server: %q", got)
	}
}

func TestASilentServerIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 4 s for the grace to end")
	}
	t.Parallel()
	s := start(t)
	m := mailer(t, s.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	got := describe(m.Send(ctx, to("silent@example.com", "b@example.com")))
	if d := time.Since(begun); d >= 10*time.Second { // then the message's own time-out ended it, and not the grace of 4 s
		t.Errorf("left after %s", d)
	}
	if !strings.HasPrefix(got[0], "false/true/") || got[1] != got[0] {
		t.Errorf("got %q", got)
	}
}

func TestBadOptions(t *testing.T) {
	good := smtp.Options{Addr: "localhost:25", TLS: "none", From: "a@example.com"}
	for _, change := range []func(*smtp.Options){
		func(o *smtp.Options) { o.Addr = "localhost" },
		func(o *smtp.Options) { o.Addr = "localhost:mail" },
		func(o *smtp.Options) { o.TLS = "perhaps" },
		func(o *smtp.Options) { o.From = "nobody" },
	} {
		o := good
		change(&o)
		if _, err := smtp.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
