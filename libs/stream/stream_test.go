package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 20 * time.Second

func producer(t *testing.T, c stream.Config) *stream.Producer {
	t.Helper()
	p, err := stream.NewProducer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// consume runs a member until the returned function is called or the test ends.
func consume(t *testing.T, c stream.Config, group string, topics []string, o stream.ConsumerOptions, handle func(context.Context, []stream.Message) error) (stop func()) {
	t.Helper()
	m, err := stream.NewConsumer(t.Context(), c, group, topics, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// seen collects what a handler gets.
type seen struct {
	mu       sync.Mutex
	messages []stream.Message
	largest  int
}

func (s *seen) handle(_ context.Context, batch []stream.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, batch...)
	s.largest = max(s.largest, len(batch))
	return nil
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}

// messages of n keys, each with values 1 to each, in an order that is right per key.
func messages(topic string, n, each int) (out []stream.Message) {
	for v := range each {
		for k := range n {
			out = append(out, stream.Message{Topic: topic, Key: fmt.Append(nil, "k", k), Value: fmt.Append(nil, v)})
		}
	}
	return out
}

// inOrder fails the test unless each key's values came 0, 1, 2, …
func inOrder(t *testing.T, got []stream.Message) {
	t.Helper()
	next := map[string]int{}
	for _, m := range got {
		if want := fmt.Sprint(next[string(m.Key)]); string(m.Value) != want {
			t.Fatalf("key %s: got %s, want %s", m.Key, m.Value, want)
		}
		next[string(m.Key)]++
	}
}

func TestEventTravels(t *testing.T) {
	t.Parallel()
	brokers, _ := testkit.Kafka(t)
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)}
	e := event.New(t.Context(), event.PaymentProcessed, "o-1", 7, 3, wrapperspb.String("paid"))
	e.Source = "/waybill/payment"
	if err := producer(t, c).Send(t.Context(), []stream.Message{stream.Encode(e)}); err != nil {
		t.Fatal(err)
	}
	var s seen
	consume(t, c, "readers", event.Topics(), stream.ConsumerOptions{}, s.handle)
	testkit.Eventually(t, wait, func() bool { return s.count() == 1 }, "the event arrives")
	got, err := stream.DecodeMessage(s.messages[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, got); diff != "" {
		t.Errorf("sent - received +:\n%s", diff)
	}
	if m := s.messages[0]; m.Topic != event.Payments || !m.Time.Equal(e.Time.Truncate(time.Millisecond)) {
		t.Errorf("record of topic %s, time %v; event %v", m.Topic, m.Time, e.Time)
	}
}

func TestEnsureTopics(t *testing.T) {
	t.Parallel()
	brokers, cluster := testkit.Kafka(t, "there")
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Partitions: 5}
	for range 2 { // the second time all of them are there
		if err := stream.EnsureTopics(t.Context(), c, []string{"there", "new"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(cluster.PartitionInfos("new")); got != 5 {
		t.Errorf("new topic has %d partitions, want 5", got)
	}
}

func TestBatchesHoldTheirBound(t *testing.T) {
	t.Parallel()
	brokers, _ := testkit.Kafka(t, "a", "b")
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)}
	p := producer(t, c)
	for _, topic := range []string{"a", "b"} {
		if err := p.Send(t.Context(), messages(topic, 10, 50)); err != nil {
			t.Fatal(err)
		}
	}
	var s seen
	consume(t, c, "readers", []string{"a", "b"}, stream.ConsumerOptions{Max: 30, Linger: 50 * time.Millisecond}, s.handle)
	testkit.Eventually(t, wait, func() bool { return s.count() == 1000 }, "all messages arrive")
	if s.largest != 30 {
		t.Errorf("the largest batch had %d messages; 1,000 wait, and 30 may come at once", s.largest)
	}
	byTopic := map[string][]stream.Message{}
	for _, m := range s.messages {
		byTopic[m.Topic] = append(byTopic[m.Topic], m)
	}
	for _, got := range byTopic {
		inOrder(t, got)
	}
}

// A handler that fails or panics gets the same batch again, and nothing overtakes it.
func TestFailingHandlerIsNeverSkipped(t *testing.T) {
	t.Parallel()
	brokers, _ := testkit.Kafka(t, "a")
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)}
	if err := producer(t, c).Send(t.Context(), messages("a", 3, 20)); err != nil {
		t.Fatal(err)
	}
	var s seen
	calls := 0
	consume(t, c, "readers", []string{"a"}, stream.ConsumerOptions{Max: 10}, func(ctx context.Context, batch []stream.Message) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the handler has no deadline")
		}
		switch calls++; calls {
		case 2:
			return errors.New("not now")
		case 3:
			panic("nor now")
		}
		return s.handle(ctx, batch)
	})
	testkit.Eventually(t, wait, func() bool { return s.count() == 60 }, "all messages arrive")
	inOrder(t, s.messages)
}

// A member that leaves in order commits what it has handled, so the next one begins behind it.
func TestLeavingCommits(t *testing.T) {
	t.Parallel()
	brokers, _ := testkit.Kafka(t, "a")
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)}
	p := producer(t, c)
	var s seen
	for round := range 3 {
		if err := p.Send(t.Context(), messages("a", 5, 10)); err != nil {
			t.Fatal(err)
		}
		stop := consume(t, c, "readers", []string{"a"}, stream.ConsumerOptions{}, s.handle)
		testkit.Eventually(t, wait, func() bool { return s.count() >= 50*(round+1) }, "all messages arrive")
		stop()
		if got := s.count(); got != 50*(round+1) {
			t.Fatalf("after %d rounds of 50 messages %d came", round+1, got)
		}
	}
}

// A batch in the middle ends when the member leaves, and counts.
func TestLeavingLetsTheHandlerEnd(t *testing.T) {
	t.Parallel()
	brokers, _ := testkit.Kafka(t, "a")
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)}
	if err := producer(t, c).Send(t.Context(), messages("a", 1, 1)); err != nil {
		t.Fatal(err)
	}
	entered, finish := make(chan struct{}), make(chan struct{})
	stop := consume(t, c, "readers", []string{"a"}, stream.ConsumerOptions{}, func(ctx context.Context, batch []stream.Message) error {
		close(entered)
		<-finish
		return ctx.Err()
	})
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(finish)
	<-stopped
	var s seen
	consume(t, c, "readers", []string{"a"}, stream.ConsumerOptions{}, s.handle)
	if err := producer(t, c).Send(t.Context(), messages("a", 1, 2)[1:]); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, wait, func() bool { return s.count() > 0 }, "the next message arrives")
	if string(s.messages[0].Value) != "1" {
		t.Errorf("the message that was handled came again")
	}
}

func TestMembersShareAndTakeOver(t *testing.T) {
	t.Parallel()
	brokers, _ := testkit.Kafka(t, "a")
	c := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)}
	p := producer(t, c)
	var one, two seen
	stop := consume(t, c, "readers", []string{"a"}, stream.ConsumerOptions{}, one.handle)
	consume(t, c, "readers", []string{"a"}, stream.ConsumerOptions{}, two.handle)
	testkit.Eventually(t, wait, func() bool {
		if err := p.Send(t.Context(), messages("a", 20, 1)); err != nil {
			t.Fatal(err)
		}
		return one.count() > 0 && two.count() > 0
	}, "both members read")
	stop()
	before := two.count()
	if err := p.Send(t.Context(), messages("a", 20, 1)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, wait, func() bool { return two.count() >= before+20 }, "the one that stays reads all")
}

// A stopped SendMessages must not hold up a shutdown.
func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	brokers, cluster := testkit.Kafka(t, "a")
	p := producer(t, stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t)})
	entered, release := make(chan struct{}), make(chan struct{})
	enter := sync.OnceFunc(func() { close(entered) })
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		enter()
		cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- p.Send(ctx, messages("a", 1, 1)) }()
	<-entered
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("Send returned %v", err)
	}
	// The next one waits for its turn, and for its context as well.
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Send(ctx, messages("a", 1, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second Send returned %v", err)
	}
	close(release)
	if err := p.Send(t.Context(), messages("a", 1, 2)); err != nil {
		t.Errorf("the third Send returned %v", err)
	}
}
