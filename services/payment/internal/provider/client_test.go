package provider_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/services/payment/internal/provider"
)

// answers plays the network: it gives one answer to every request, or none.
type answers struct {
	status int
	body   string
	hang   bool
	got    *http.Request
	sent   string
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.got = r
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		a.sent = string(b)
	}
	if a.hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: a.status, Header: http.Header{"Location": {"http://elsewhere.example/"}}, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func client(t *testing.T, a *answers) *provider.Client {
	t.Helper()
	c, err := provider.NewClient("http://provider.example/", a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var request = provider.ChargeRequest{Key: "o-1:charge", OrderID: "o-1", Amount: 5990, Currency: "EUR", Method: "card"}

const captured = `{"id":"ch_1","key":"o-1:charge","order_id":"o-1","amount":5990,"currency":"EUR","status":"captured","reason":""}`

func TestCharge(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // status of the charge; empty: no answer
	}{
		"captured":             {200, captured, provider.Captured},
		"declined":             {200, strings.Replace(captured, "captured", "declined", 1), provider.Declined},
		"voided":               {200, strings.Replace(captured, "captured", "voided", 1), provider.Voided},
		"unknown status":       {200, strings.Replace(captured, "captured", "pending", 1), ""},
		"another key":          {200, strings.Replace(captured, "o-1:charge", "o-2:charge", 1), ""},
		"another order":        {200, strings.Replace(captured, `"o-1"`, `"o-2"`, 1), ""},
		"another amount":       {200, strings.Replace(captured, "5990", "1", 1), ""},
		"another currency":     {200, strings.Replace(captured, "EUR", "JPY", 1), ""},
		"endless id":           {200, strings.Replace(captured, "ch_1", strings.Repeat("x", 201), 1), ""},
		"empty":                {200, "", ""},
		"HTML":                 {200, "<html>", ""},
		"more than 64 KiB":     {200, captured + strings.Repeat(" ", 70_000), ""},
		"created":              {201, captured, ""},
		"redirect":             {307, captured, ""},
		"bad request":          {400, "", provider.Declined},
		"unprocessable":        {422, "", provider.Declined},
		"bad credentials":      {401, "", ""},
		"wrong address":        {404, "", ""},
		"key used differently": {409, "", ""},
		"too many":             {429, "", ""},
		"broken":               {500, captured, ""},
		"down":                 {503, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := &answers{status: c.status, body: c.body}
			got, err := client(t, a).Charge(t.Context(), request)
			if c.want == "" {
				if !errors.Is(err, provider.ErrNoAnswer) {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil || got.Status != c.want {
				t.Errorf("%+v, %v", got, err)
			}
			if a.sent != `{"key":"o-1:charge","order_id":"o-1","amount":5990,"currency":"EUR","method":"card"}` {
				t.Errorf("sent %s", a.sent)
			}
		})
	}
}

func TestQuestions(t *testing.T) {
	a := &answers{status: 404}
	c := client(t, a)
	if _, err := c.FindCharge(t.Context(), "o-1:charge"); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("a charge that was never seen: %v", err)
	}
	if _, err := c.FindRefund(t.Context(), "o/1?:refund:1"); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("a refund that was never seen: %v", err)
	}
	if got := a.got.URL.EscapedPath(); got != "/provider/refunds/o%2F1%3F:refund:1" {
		t.Errorf("asked for %s", got)
	}
	if _, err := c.Void(t.Context(), "o-1:charge"); !errors.Is(err, provider.ErrNoAnswer) {
		t.Errorf("voiding at a wrong address: %v", err)
	}
	a.status, a.body = 200, `{"status":"voided"}`
	if x, err := c.Void(t.Context(), "o-1:charge"); err != nil || x.Status != provider.Voided {
		t.Errorf("void: %+v, %v", x, err)
	}
	a.body = `{"id":"re","key":"o-1:refund:1","status":"refunded"}`
	if x, err := c.FindRefund(t.Context(), "o-1:refund:1"); err != nil || x.Status != provider.Refunded {
		t.Errorf("refund: %+v, %v", x, err)
	}
	a.status = 422
	if x, err := c.Refund(t.Context(), provider.RefundRequest{Key: "o-1:refund:1"}); err != nil || x.Status != provider.Failed {
		t.Errorf("a refused refund: %+v, %v", x, err)
	}
}

// TestTimeouts: a charge may take 5 s, a question 3 s.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(t, &answers{hang: true})
		for limit, call := range map[time.Duration]func() error{
			5 * time.Second: func() error { _, err := c.Charge(context.Background(), request); return err },
			3 * time.Second: func() error { _, err := c.FindCharge(context.Background(), request.Key); return err },
		} {
			start := time.Now()
			if err := call(); !errors.Is(err, provider.ErrNoAnswer) {
				t.Errorf("%v", err)
			}
			if took := time.Since(start); took != limit {
				t.Errorf("gave up after %v, want %v", took, limit)
			}
		}
	})
}

func TestNewClientRefusesBadURLs(t *testing.T) {
	for _, u := range []string{"", "provider", "ftp://provider", "http://", "://"} {
		if _, err := provider.NewClient(u, nil); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
}
