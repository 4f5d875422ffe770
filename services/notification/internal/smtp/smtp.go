// Package smtp hands messages to a mail server.
package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/waybill-dev/waybill/services/notification/internal/notice"
)

const (
	// timeout bounds each message, and the connection.
	timeout = 10 * time.Second
	// grace is what a message that is under way gets when the caller wants to leave: one that is cut off may have been taken,
	// and would be sent again. A service has 8 s to stop its processes.
	grace = 4 * time.Second
)

// Options say where the mail server is and who we are to it.
type Options struct {
	Addr     string // host:port
	TLS      string // none, opportunistic or mandatory
	Username string // empty: no authentication
	Password string
	From     string // RFC 5322 address, perhaps with a name
}

// Mailer sends mail.
type Mailer struct {
	client *gomail.Client
	from   string
	domain string
}

var policies = map[string]gomail.TLSPolicy{
	"none": gomail.NoTLS, "opportunistic": gomail.TLSOpportunistic, "mandatory": gomail.TLSMandatory,
}

// New makes a mailer. It does not connect.
func New(o Options) (*Mailer, error) {
	host, p, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("read SMTP_ADDR: %w", err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return nil, fmt.Errorf("read the port of SMTP_ADDR: %w", err)
	}
	from, err := mail.ParseAddress(o.From)
	if err != nil {
		return nil, fmt.Errorf("read MAIL_FROM: %w", err)
	}
	policy, ok := policies[o.TLS]
	if !ok {
		return nil, fmt.Errorf("SMTP_TLS is %q, neither none nor opportunistic nor mandatory", o.TLS)
	}
	options := []gomail.Option{
		gomail.WithPort(port), gomail.WithTLSPolicy(policy), gomail.WithTimeout(timeout),
		// Each costs a round trip a message, and the message itself finds out the same.
		gomail.WithoutNoop(), gomail.WithoutRset(),
		gomail.WithDialContextFunc(dial),
	}
	if o.Username != "" {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(o.Username), gomail.WithPassword(o.Password))
	}
	client, err := gomail.NewClient(host, options...)
	if err != nil {
		return nil, fmt.Errorf("make the mail client: %w", err)
	}
	return &Mailer{client: client, from: from.String(), domain: from.Address[strings.LastIndexByte(from.Address, '@')+1:]}, nil
}

// Failure is why a message was not taken. Its text has no address in it: it is logged and kept.
type Failure struct {
	// Permanent says that this message will never be taken.
	Permanent bool
	// Broken says that nothing more can be sent over this connection.
	Broken bool
	reason string
}

// Error says what the server answered, or that it did not.
func (f *Failure) Error() string { return f.reason }

// Send sends messages over one connection and tells of each whether it was taken: nil, or a *Failure. After the first one
// that breaks the connection, or when ctx ends, the rest are not tried and get that failure.
func (m *Mailer) Send(ctx context.Context, ns []notice.Notice) []error {
	errs := make([]error, len(ns))
	l := &line{}
	conn, err := m.client.DialToSMTPClientWithContext(context.WithValue(ctx, lineKey{}, l))
	if err != nil {
		for i := range errs {
			errs[i] = &Failure{Broken: true, reason: "the mail server cannot be reached" + code(err)}
		}
		return errs
	}
	defer func() { _ = m.client.CloseWithSMTPClient(conn) }()
	done := make(chan struct{})
	defer close(done)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(grace):
			_ = l.Close() // a silent server is not waited for
		}
	})
	defer stop()
	for i, n := range ns {
		if ctx.Err() != nil {
			errs[i] = &Failure{Broken: true, reason: "not tried in time"}
			continue
		}
		msg, err := m.message(n)
		if err != nil {
			errs[i] = err
			continue
		}
		if err := m.client.SendWithSMTPClient(conn, msg); err == nil || msg.IsDelivered() {
			continue // delivered, whatever went wrong behind it
		}
		f := failure(msg)
		errs[i] = f
		if f.Broken {
			for j := i + 1; j < len(errs); j++ {
				errs[j] = f
			}
			break
		}
	}
	return errs
}

// line is the connection below the library's client. The client is locked while it waits for an answer, so hanging up goes
// past it.
type line struct{ net.Conn }

type lineKey struct{}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if l, ok := ctx.Value(lineKey{}).(*line); ok && err == nil {
		l.Conn = conn
	}
	return conn, err
}

func (m *Mailer) message(n notice.Notice) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithEncoding(gomail.EncodingQP))
	if err := msg.From(m.from); err != nil {
		return nil, &Failure{reason: "our own address is not valid"}
	}
	if err := msg.To(n.Recipient); err != nil {
		return nil, &Failure{Permanent: true, reason: "the address is not valid"}
	}
	msg.SetMessageIDWithValue(n.MessageID(m.domain))
	msg.SetDate()
	msg.Subject(n.Subject)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office replies, please
	msg.SetGenHeader("X-Waybill-Order", n.OrderID)
	msg.SetBodyString(gomail.TypeTextPlain, n.Text)
	return msg, nil
}

// failure reads what the library says. Its error texts hold addresses, so only codes are taken over.
func failure(msg *gomail.Msg) *Failure {
	var e *gomail.SendError
	if !errors.As(msg.SendError(), &e) || e.ErrorCode() == 0 {
		return &Failure{Broken: true, reason: "the mail server stopped answering"}
	}
	about := "the mail server answered " + strconv.Itoa(e.ErrorCode())
	if s := e.EnhancedStatusCode(); s != "" {
		about += " " + s
	}
	// 421 closes the connection (RFC 5321, 4.2.3). A 5xx to our own address, or to authentication, is about us and may be
	// put right; only what is said of the recipient or the message is for good.
	ours := e.Reason == gomail.ErrSMTPMailFrom
	return &Failure{Permanent: e.ErrorCode()/100 == 5 && !ours, Broken: e.ErrorCode() == 421, reason: about}
}

func code(err error) string {
	var e *net.OpError
	if errors.As(err, &e) {
		return ": " + e.Op
	}
	return ""
}
