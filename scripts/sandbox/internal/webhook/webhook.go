// Package webhook tells the platform what happened, the way providers and carriers do: signed by the Standard Webhooks
// scheme (https://www.standardwebhooks.com), at least once, in no particular order, sometimes twice.
//
// It is a courtesy, not a promise: the queue is bounded and a receiver that stays away too long is given up. Whoever
// must know polls.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
)

const (
	// queueLen bounds memory to some MB while a receiver is away; what does not fit is dropped and counted.
	queueLen = 8192
	// workers is how many deliveries run at a time. A receiver answers when it has committed, which it does for many at
	// once: at 50 ms a commit under load this is 2,560/s.
	workers = 128
	// twiceEvery sends every tenth message again under the same id, so that each run meets duplicates.
	twiceEvery = 10
	// attemptTimeout is what a receiver may take.
	attemptTimeout = 5 * time.Second
)

// retries are the pauses before the second and later attempts. After a minute the poll has long told the receiver.
var retries = []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second, 20 * time.Second, 30 * time.Second}

// Options says where a sender reports to.
type Options struct {
	Name     string // "payment" or "shipping": a label
	URL      string // empty: nobody wants to know
	Secret   string // whsec_…, base64
	Faults   *fault.Set
	Log      *zap.Logger
	Registry prometheus.Registerer
}

// Sender delivers to one URL.
type Sender struct {
	url    string
	name   string
	sign   *standardwebhooks.Webhook
	faults *fault.Set
	log    *zap.Logger
	client *http.Client
	queue  chan *message
	sent   atomic.Int64
	count  *prometheus.CounterVec
}

type message struct {
	id      string
	order   string
	body    []byte
	attempt int
}

// New makes a sender. Nothing is delivered before Run.
func New(o Options) (*Sender, error) {
	sign, err := standardwebhooks.NewWebhook(o.Secret)
	if err != nil {
		return nil, fmt.Errorf("read the %s webhook secret: %w", o.Name, err)
	}
	return &Sender{
		url: o.URL, name: o.Name, sign: sign, faults: o.Faults, log: o.Log,
		client: &http.Client{
			Timeout:   attemptTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: workers, IdleConnTimeout: time.Minute},
		},
		queue: make(chan *message, queueLen),
		count: promauto.With(o.Registry).NewCounterVec(prometheus.CounterOpts{
			Name:        "waybill_sandbox_webhooks_total",
			Help:        "Webhook deliveries by result: delivered, retried, given_up, dropped (queue full or by a fault).",
			ConstLabels: prometheus.Labels{"receiver": o.Name},
		}, []string{"result"}),
	}, nil
}

// Send queues a report about an order. It never blocks.
func (s *Sender) Send(typ, order string, data any) {
	if s.url == "" {
		return
	}
	f := s.faults.Take(fault.Webhook, order)
	if f.Outcome == "drop" {
		s.count.WithLabelValues("dropped").Inc()
		return
	}
	body, err := json.Marshal(struct {
		Type string    `json:"type"`
		At   time.Time `json:"timestamp"`
		Data any       `json:"data"`
	}{typ, time.Now().UTC(), data})
	if err != nil {
		panic(err) // our own structs
	}
	m := message{id: "msg_" + uuid.NewString(), order: order, body: body}
	copies := 1
	if f.Outcome == "twice" || s.sent.Add(1)%twiceEvery == 0 {
		copies = 2
	}
	for range copies {
		c := m
		if f.Delay > 0 {
			time.AfterFunc(f.Delay, func() { s.enqueue(&c) })
		} else {
			s.enqueue(&c)
		}
	}
}

func (s *Sender) enqueue(m *message) {
	select {
	case s.queue <- m:
	default:
		s.count.WithLabelValues("dropped").Inc()
	}
}

// Run delivers until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case m := <-s.queue:
					s.deliver(ctx, m)
				}
			}
		})
	}
	return g.Wait()
}

func (s *Sender) deliver(ctx context.Context, m *message) {
	err := s.post(ctx, m)
	switch {
	case err == nil:
		s.count.WithLabelValues("delivered").Inc()
	case ctx.Err() != nil:
	case m.attempt < len(retries):
		s.count.WithLabelValues("retried").Inc()
		pause := retries[m.attempt]
		m.attempt++
		time.AfterFunc(pause, func() { s.enqueue(m) })
	default:
		s.count.WithLabelValues("given_up").Inc()
		s.log.Warn("webhook given up", zap.String("receiver", s.name), zap.String("order_id", m.order), zap.Error(err))
	}
}

func (s *Sender) post(ctx context.Context, m *message) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(m.body))
	if err != nil {
		return err
	}
	now := time.Now()
	signature, err := s.sign.Sign(m.id, now, m.body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(standardwebhooks.HeaderWebhookID, m.id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	// Drained, or the connection could not be used again.
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	err = errors.Join(err, resp.Body.Close())
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("receiver answered %s", resp.Status)
	}
	return err
}
