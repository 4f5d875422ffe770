package oracle

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
)

// check is one look at a platform.
type check struct {
	target Target
	spoil  *spoiler // of the self-test; nil: look at things as they are
	say    func(string, ...any)
	found  *findings
	counts map[string]int64
	adm    *kadm.Client

	lent  map[string]*pgx.Conn // of the self-test, which looks many times; otherwise each look has its own
	db    map[string]*database
	last  map[string]int64 // highest row of each outbox
	spans map[string]map[int32]span
	now   time.Time // PostgreSQL's

	books     map[string]*booked // what provider and carrier did, by order
	mailed    map[string]int     // what the mail server took, by event and channel
	mailFrom  time.Time          // it has dropped what is older; zero: nothing
	asked     map[string]*asked  // by the load process, by order
	begun     time.Time          // its first operation
	parked    map[key]*waiting
	dead      map[letter]bool
	unapplied map[letter]bool   // those that were not redriven
	tickets   map[ticket]string // status of the newest
	days      map[day]*tally    // what the topics hold
	countFrom string            // days before have lost events to retention

	seed    maphash.Seed
	scratch []byte
}

// defaultWait is longer than any take-over and any back-off of the platform but those of a provider that stays away.
const defaultWait = 2 * time.Minute

// Check waits until the platform rests and checks every invariant. An error means that it could not be checked: an
// *Unsettled, or a store that cannot be read. progress, where set, hears what is going on.
func Check(ctx context.Context, t Target, progress func(string)) (Report, error) {
	if t.Wait <= 0 {
		t.Wait = defaultWait
	}
	if progress == nil {
		progress = func(string) {}
	}
	say := func(format string, args ...any) { progress(fmt.Sprintf(format, args...)) }
	begin := time.Now()
	adm, err := brokers(t.Kafka)
	if err != nil {
		return Report{}, err
	}
	defer adm.Close()
	for {
		if err := settle(ctx, t, adm, begin, say); err != nil {
			return Report{}, err
		}
		settled := time.Since(begin)
		c := newCheck(t, adm, say)
		r, err := c.run(ctx)
		if err != nil {
			return Report{}, err
		}
		r.Started, r.Settled, r.Seconds = begin.UTC(), settled.Seconds(), time.Since(begin).Seconds()
		if r.Clean {
			return r, nil
		}
		// Stores are read one after the other: what seems wrong may have happened in between.
		moved, err := c.moved(ctx)
		if err != nil || moved == "" {
			return r, err
		}
		if time.Since(begin) > t.Wait {
			return Report{}, &Unsettled{Waited: t.Wait, Why: []string{moved + " while the stores were read"}}
		}
		say("%s meanwhile: looking again", moved)
	}
}

func newCheck(t Target, adm *kadm.Client, say func(string, ...any)) *check {
	return &check{
		target: t, adm: adm, say: say, found: newFindings(), counts: map[string]int64{}, last: map[string]int64{},
		days: map[day]*tally{}, seed: maphash.MakeSeed(),
	}
}

// run reads everything once.
func (c *check) run(ctx context.Context) (r Report, err error) {
	defer c.release()
	// The topics are looked at first: what is on them by then must be in the snapshots taken after.
	if c.spans, err = bounds(ctx, c.adm); err != nil {
		return r, err
	}
	if err = c.snapshot(ctx); err != nil {
		return r, err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"interventions", c.readDesks},
		{"the sandbox's books", c.readSandbox},
		{"the clients' history", c.readHistory},
		{"the topic orders, its outbox and its readers", c.reading(0)},
		{"the topic payments", c.reading(1)},
		{"the topic inventory", c.reading(2)},
		{"the topic shipping", c.reading(3)},
		{"the readers' offsets", c.readOffsets},
		{"analytics", c.readAnalytics},
		{"stock", c.readStock},
		{"the payment ledger", c.readLedger},
		{"idempotency keys", c.readKeys},
		{"orders", c.readOrders},
	} {
		c.say("reading %s", step.what)
		if err = step.do(ctx); err != nil {
			return r, err
		}
	}
	if err = c.timelines(ctx); err != nil {
		return r, err
	}
	r.Findings, r.Clean = c.found.list()
	r.Counts = c.counts
	return r, nil
}

func (c *check) reading(n int) func(context.Context) error {
	return func(ctx context.Context) error { return c.checkTopic(ctx, writers[n]) }
}

// readOffsets says that no group has committed more than there was, or less.
func (c *check) readOffsets(ctx context.Context) error {
	behind, err := lag(ctx, c.adm, c.spans)
	if err != nil {
		return err
	}
	c.spoil.lag(behind)
	for _, topics := range readers {
		c.found.looked("I-EVT-6", int64(len(topics)))
	}
	for what, n := range behind {
		c.found.broken("I-EVT-6", "", "%s by %d records", what, n)
	}
	return nil
}

// moved says whether something was written since the snapshots.
func (c *check) moved(ctx context.Context) (string, error) {
	spans, err := bounds(ctx, c.adm)
	if err != nil {
		return "", err
	}
	for topic, partitions := range spans {
		for id, s := range partitions {
			if n := s.end - c.spans[topic][id].end; n > 0 {
				return fmt.Sprintf("%d records came onto topic %s", n, topic), nil
			}
		}
	}
	for _, name := range databaseNames {
		was, publishes := c.last[name]
		if !publishes {
			continue
		}
		conn, err := connect(ctx, c.target.Postgres, name, true)
		if err != nil {
			return "", err
		}
		var last int64
		err = errors.Join(conn.QueryRow(ctx, `SELECT coalesce(max(id), 0) FROM outbox`).Scan(&last), conn.Close(ctx))
		if err != nil {
			return "", fmt.Errorf("read database %s: %w", name, err)
		}
		if last > was {
			return fmt.Sprintf("%d rows came into the outbox of %s", last-was, name), nil
		}
	}
	return "", nil
}
