// Package provider is a payment provider: it captures, declines, voids and refunds under keys that the caller chooses.
//
// A key answers the same for ever. Voiding an unseen key leaves a tombstone, so a charge that arrives late captures
// nothing. What the card does is said by the payment method, as real providers' test cards do it.
package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"time"
	"unique"

	"github.com/waybill-dev/waybill/scripts/sandbox/internal/ledger"
)

// States of a charge and of a refund.
const (
	Captured = "captured"
	Declined = "declined"
	Voided   = "voided"
	Refunded = "refunded"
	Failed   = "failed"
)

// ErrDown is a provider that cannot be used now. Nothing happened.
var ErrDown = errors.New("the provider is down")

// ErrKeyReused is a key that was used before with another order, amount or currency.
var ErrKeyReused = errors.New("key used before with other contents")

// slow is how long card_slow takes; flaky how many charges card_flaky refuses.
const (
	slow  = 2 * time.Second
	flaky = 2
)

// Charge is money taken, or not.
type Charge struct {
	ID       string `json:"id"`
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
}

// Refund is money given back, or not.
type Refund struct {
	ID        string `json:"id"`
	Key       string `json:"key"`
	ChargeKey string `json:"charge_key"`
	OrderID   string `json:"order_id"`
	Amount    int64  `json:"amount"`
	Currency  string `json:"currency"`
	Status    string `json:"status"`
	Reason    string `json:"reason"`
}

// Manner is how an answer is given.
type Manner struct {
	Delay time.Duration
	// Silent lets the caller time out: the thing is done, but not said.
	Silent bool
}

// charge is what memory keeps of a charge; its id is derived from its key. About 200 bytes with its map entry.
type charge struct {
	order    string
	currency string
	status   string
	reason   string
	amount   int64
	refunded int64
}

// Provider is the provider's books. It is safe for concurrent use.
type Provider struct {
	mu       sync.Mutex
	ledger   *ledger.Ledger
	charges  map[string]charge
	refunds  map[string]Refund
	attempts map[string]int // charges answered ErrDown, until one is answered otherwise
}

// New makes empty books; Replay fills them before Use.
func New() *Provider {
	return &Provider{charges: map[string]charge{}, refunds: map[string]Refund{}, attempts: map[string]int{}}
}

// Use sets the ledger that is written from now on.
func (p *Provider) Use(l *ledger.Ledger) { p.ledger = l }

// Replay applies a fact of the ledger.
func (p *Provider) Replay(e ledger.Entry) {
	switch e.Kind {
	case ledger.ChargeAttempt:
		p.attempts[e.Key]++
	case ledger.Capture, ledger.Decline, ledger.Void:
		delete(p.attempts, e.Key)
		p.charges[e.Key] = charge{
			order: e.OrderID, currency: intern(e.Currency), status: statusOf[e.Kind], reason: intern(e.Reason), amount: e.Amount,
		}
	case ledger.Refund, ledger.RefundFailed:
		p.keepRefund(Refund{
			ID: e.ID, Key: e.Key, ChargeKey: e.Of, OrderID: e.OrderID, Amount: e.Amount,
			Currency: intern(e.Currency), Status: statusOf[e.Kind], Reason: e.Reason,
		})
	}
}

var statusOf = map[ledger.Kind]string{
	ledger.Capture: Captured, ledger.Decline: Declined, ledger.Void: Voided, ledger.Refund: Refunded, ledger.RefundFailed: Failed,
}

var kindOf = map[string]ledger.Kind{
	Captured: ledger.Capture, Declined: ledger.Decline, Voided: ledger.Void, Refunded: ledger.Refund, Failed: ledger.RefundFailed,
}

// ChargeRequest asks for money.
type ChargeRequest struct {
	Key      string
	OrderID  string
	Amount   int64
	Currency string
	Method   string
}

// Charge takes the money as the method has it. decline asks for a decline whatever the method.
func (p *Provider) Charge(r ChargeRequest, decline bool) (Charge, Manner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.charges[r.Key]; ok {
		if c.status != Voided && (c.order != r.OrderID || c.amount != r.Amount || c.currency != r.Currency) {
			return Charge{}, Manner{}, ErrKeyReused
		}
		return c.answer(r.Key), Manner{}, nil
	}
	c := charge{order: r.OrderID, currency: intern(r.Currency), amount: r.Amount, status: Captured}
	var m Manner
	switch method := r.Method; {
	case decline, method == "card_declined":
		c.status, c.reason = Declined, "card_declined"
	case method == "card_down", method == "card_flaky" && p.attempts[r.Key] < flaky:
		if err := p.write(ledger.ChargeAttempt, r.Key, c, ""); err != nil {
			return Charge{}, Manner{}, err
		}
		p.attempts[r.Key]++
		return Charge{}, Manner{}, ErrDown
	case method == "card_timeout":
		m.Silent = true
	case method == "card_slow":
		m.Delay = slow
	case method == "card", method == "card_flaky":
	default:
		c.status, c.reason = Declined, "unknown_method"
	}
	if err := p.write(kindOf[c.status], r.Key, c, c.reason); err != nil {
		return Charge{}, Manner{}, err
	}
	p.charges[r.Key] = c
	delete(p.attempts, r.Key)
	return c.answer(r.Key), m, nil
}

// FindCharge returns the charge under the key, if the key was ever seen.
func (p *Provider) FindCharge(key string) (Charge, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.charges[key]
	return c.answer(key), ok
}

// Void makes sure that nothing will be captured under the key. A charge that was captured stays captured.
func (p *Provider) Void(key, order string) (Charge, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.charges[key]
	if !ok {
		c = charge{order: order, status: Voided}
		if err := p.write(ledger.Void, key, c, ""); err != nil {
			return Charge{}, err
		}
		p.charges[key] = c
		delete(p.attempts, key)
	}
	return c.answer(key), nil
}

// RefundRequest asks for money back.
type RefundRequest struct {
	Key       string
	ChargeKey string
	OrderID   string
	Amount    int64
	Currency  string
}

// Refund gives back what the charge has left. fail asks for a definite failure.
func (p *Provider) Refund(r RefundRequest, fail bool) (Refund, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.refunds[r.Key]; ok {
		if f.ChargeKey != r.ChargeKey || f.Amount != r.Amount || f.Currency != r.Currency {
			return Refund{}, ErrKeyReused
		}
		return f, nil
	}
	f := Refund{
		ID: id("re_", r.Key), Key: r.Key, ChargeKey: r.ChargeKey, OrderID: r.OrderID, Amount: r.Amount,
		Currency: intern(r.Currency), Status: Refunded,
	}
	c := p.charges[r.ChargeKey]
	switch {
	case fail:
		f.Status, f.Reason = Failed, "refused"
	case c.status != Captured:
		f.Status, f.Reason = Failed, "not_captured"
	case c.currency != r.Currency:
		f.Status, f.Reason = Failed, "currency_mismatch"
	case r.Amount > c.amount-c.refunded:
		f.Status, f.Reason = Failed, "exceeds_capture"
	}
	err := p.ledger.Append(ledger.Entry{
		At: time.Now().UTC(), Kind: kindOf[f.Status], Key: f.Key, OrderID: f.OrderID, Amount: f.Amount,
		Currency: f.Currency, ID: f.ID, Of: f.ChargeKey, Reason: f.Reason,
	})
	if err != nil {
		return Refund{}, err
	}
	p.keepRefund(f)
	return f, nil
}

// FindRefund returns the refund under the key, if the key was ever seen.
func (p *Provider) FindRefund(key string) (Refund, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.refunds[key]
	return f, ok
}

func (p *Provider) keepRefund(f Refund) {
	p.refunds[f.Key] = f
	if f.Status == Refunded {
		c := p.charges[f.ChargeKey]
		c.refunded += f.Amount
		p.charges[f.ChargeKey] = c
	}
}

func (p *Provider) write(k ledger.Kind, key string, c charge, reason string) error {
	return p.ledger.Append(ledger.Entry{
		At: time.Now().UTC(), Kind: k, Key: key, OrderID: c.order, Amount: c.amount, Currency: c.currency, Reason: reason,
	})
}

func (c charge) answer(key string) Charge {
	return Charge{
		ID: id("ch_", key), Key: key, OrderID: c.order, Amount: c.amount, Currency: c.currency, Status: c.status, Reason: c.reason,
	}
}

// id derives a name from a key, so that memory and file need not keep one.
func id(prefix, key string) string {
	sum := sha256.Sum256([]byte(key))
	return prefix + hex.EncodeToString(sum[:10])
}

// intern shares the few currencies and reasons that there are.
func intern(s string) string { return unique.Make(s).Value() }
