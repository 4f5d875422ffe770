package e2e_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// catalogue is the contract: what may be on which topic, and who writes it.
var catalogue = map[string]struct {
	source string
	types  []string
}{
	"orders":    {"/waybill/order", []string{"order.created", "order.payment_requested", "order.payment_processed", "order.refund_requested", "order.shipping_requested", "order.completed", "order.cancelled", "order.failed", "order.attention"}},
	"inventory": {"/waybill/inventory", []string{"inventory.reserved", "inventory.released", "inventory.updated"}},
	"payments":  {"/waybill/payment", []string{"payment.initiated", "payment.processed", "payment.failed", "payment.refunded", "payment.refund_failed"}},
	"shipping":  {"/waybill/shipping", []string{"shipping.requested", "shipping.progress", "shipping.completed", "shipping.failed"}},
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

type record struct {
	topic, key string
	headers    map[string]string
	value      []byte
}

// TestEventsKeepTheirContract reads all that the other tests have caused so far.
func TestEventsKeepTheirContract(t *testing.T) {
	if platform.kafka == nil {
		t.Skip("SKIPPED: WAYBILL_E2E_KAFKA is not set")
	}
	var ids []string
	for _, method := range []string{"card", "card_declined"} {
		o := basket(t, shelf(t, 10), 2)
		o.PaymentMethod = method
		place(t, customer, o)
		await(t, customer, o.OrderID)
		ids = append(ids, o.OrderID)
	}
	type key struct{ source, subject string }
	highest, trace := map[key]int64{}, map[string]map[string]bool{}
	topics := map[string]map[string]bool{} // of an order, the types seen
	err := consume(t, func(r record) bool {
		check(t, r)
		h := r.headers
		seq, _ := strconv.ParseInt(h["ce_aggregateseq"], 10, 64)
		k := key{h["ce_source"], h["ce_subject"]}
		// A record may come twice; a later one may not come before an earlier one.
		if seq > highest[k]+1 {
			t.Errorf("%s of %s: %d follows %d", r.topic, r.key, seq, highest[k])
		}
		highest[k] = max(highest[k], seq)
		if slices.Contains(ids, r.key) {
			if topics[r.key] == nil {
				topics[r.key], trace[r.key] = map[string]bool{}, map[string]bool{}
			}
			topics[r.key][h["ce_type"]] = true
			trace[r.key][strings.Split(h["traceparent"], "-")[1]] = true
		}
		return topics[ids[0]]["order.completed"] && topics[ids[0]]["inventory.updated"] && topics[ids[1]]["order.cancelled"] && topics[ids[1]]["inventory.released"]
	})
	if err != nil {
		t.Errorf("%v; of the two orders were seen %v", err, topics)
	}
	for id, traces := range trace {
		// One trace from the buyer's request to the last event.
		if len(traces) != 1 {
			t.Errorf("order %s has %d traces", id, len(traces))
		}
	}
}

// check is the envelope: CloudEvents 1.0 in binary mode, with our two extensions.
func check(t *testing.T, r record) {
	t.Helper()
	h := r.headers
	bad := func(what string) { t.Errorf("a record of %s, key %q: %s: %v", r.topic, r.key, what, h) }
	entry, known := catalogue[r.topic]
	if !known || h["ce_source"] != entry.source || !slices.Contains(entry.types, h["ce_type"]) {
		bad("source or type does not belong here")
	}
	if h["ce_specversion"] != "1.0" || h["content-type"] != "application/protobuf" {
		bad("version or content type")
	}
	if id, err := uuid.Parse(h["ce_id"]); err != nil || id.Version() != 7 {
		bad("ce_id is no UUIDv7")
	}
	if _, err := time.Parse(time.RFC3339Nano, h["ce_time"]); err != nil {
		bad("ce_time")
	}
	if h["ce_subject"] != r.key || r.key == "" {
		bad("key and subject differ")
	}
	if n, err := strconv.ParseInt(h["ce_tenantid"], 10, 64); err != nil || n < 1 {
		bad("ce_tenantid")
	}
	if n, err := strconv.ParseInt(h["ce_aggregateseq"], 10, 64); err != nil || n < 1 {
		bad("ce_aggregateseq")
	}
	if !traceparent.MatchString(h["traceparent"]) || strings.Contains(h["traceparent"], hex.EncodeToString(make([]byte, 16))) {
		bad("traceparent")
	}
}

// consume reads all topics from their beginning until each returns true.
func consume(t *testing.T, each func(record) bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), endWithin)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(platform.kafka...), kgo.ConsumeTopics("orders", "inventory", "payments", "shipping"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("read the topics: %w", err)
		}
		done := false
		fetches.EachRecord(func(r *kgo.Record) {
			rec := record{topic: r.Topic, key: string(r.Key), value: r.Value, headers: map[string]string{}}
			for _, h := range r.Headers {
				if _, twice := rec.headers[h.Key]; twice {
					t.Errorf("header %s stands twice", h.Key)
				}
				rec.headers[h.Key] = string(h.Value)
			}
			done = each(rec) || done
		})
		if done {
			return nil
		}
	}
}
