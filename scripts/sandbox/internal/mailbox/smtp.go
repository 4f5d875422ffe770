package mailbox

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
)

// Serve takes mail on the listener until ctx ends.
func (m *Mailbox) Serve(ctx context.Context, l net.Listener, faults *fault.Set, log *zap.Logger) error {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{ctx: ctx, box: m, faults: faults}, nil
	}))
	s.Domain = "sandbox.localhost"
	s.MaxMessageBytes = maxMessage
	s.MaxRecipients = 10
	s.ReadTimeout, s.WriteTimeout = time.Minute, time.Minute
	s.ErrorLog = quiet{log}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve SMTP: %w", err)
	}
	return nil
}

// quiet keeps the library's complaints about clients that hang up at a level that nobody is woken by.
type quiet struct{ log *zap.Logger }

// Printf implements smtp.Logger.
func (q quiet) Printf(format string, v ...any) { q.log.Debug("smtp: " + fmt.Sprintf(format, v...)) }

// Println implements smtp.Logger.
func (q quiet) Println(v ...any) { q.log.Debug("smtp: " + fmt.Sprint(v...)) }

type session struct {
	ctx    context.Context
	box    *Mailbox
	faults *fault.Set
	from   string
	to     []string
	after  fault.Rule // applies once the message is kept
}

// Reset implements smtp.Session.
func (s *session) Reset() { s.from, s.to, s.after = "", nil, fault.Rule{} }

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	f := s.faults.Take(fault.Mail, to)
	if f.AfterEffect {
		s.after = f
	} else if err := s.spoil(f); err != nil {
		return err
	}
	s.to = append(s.to, to)
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	x, err := parse(r)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "malformed message"}
	}
	x.From, x.To = s.from, s.to
	if err := s.box.Put(x); err != nil {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "cannot be kept now"}
	}
	return s.spoil(s.after)
}

func (s *session) spoil(f fault.Rule) error {
	fault.Wait(s.ctx, f.Delay)
	if f.Timeout {
		fault.Hold(s.ctx)
	}
	if f.Status == 0 && !f.Timeout {
		return nil
	}
	code := f.Status
	if code == 0 {
		code = 421
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "as asked for"}
}

func parse(r io.Reader) (Message, error) {
	msg, err := mail.ReadMessage(r)
	if err != nil {
		return Message{}, err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil {
		return Message{}, err
	}
	text, err := body(msg.Header.Get, msg.Body)
	if err != nil {
		return Message{}, err
	}
	return Message{Subject: subject, MessageID: strings.Trim(msg.Header.Get("Message-Id"), "<>"), Text: text}, nil
}

// body decodes a text; of a multipart message its first part.
func body(header func(string) string, r io.Reader) (string, error) {
	typ, params, err := mime.ParseMediaType(header("Content-Type"))
	if err == nil && strings.HasPrefix(typ, "multipart/") {
		part, err := multipart.NewReader(r, params["boundary"]).NextRawPart()
		if err != nil {
			return "", err
		}
		return body(part.Header.Get, part)
	}
	switch strings.ToLower(header("Content-Transfer-Encoding")) {
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	}
	b, err := io.ReadAll(r)
	return lineEnds(b), err
}
