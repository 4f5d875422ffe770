package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1" // registers its messages
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

func newEvents(c *common) *cobra.Command {
	cmd := &cobra.Command{Use: "events", Short: "Look at the events on the topics", Example: "  waybill events tail"}
	cmd.AddCommand(newTail(c))
	return cmd
}

// tail prints events.
type tail struct {
	out             *terminal.Screen
	topics          []string
	types           []string
	subject         string
	start, once     bool
	asJSON, private bool
}

func newTail(c *common) *cobra.Command {
	t := tail{out: c.out}
	var kafka string
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print events as they are written, decoded",
		Long: `Print events as they are written: envelope and message, decoded with the contracts in proto/.
Addresses and e-mail are left out unless --personal is given.`,
		Example: `  waybill events tail
  waybill events tail --from-start --once --subject o-1
  waybill events tail --topic payments --json | jq .data.reason`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kafka == "" {
				s, err := stack.Load(c.data)
				if err != nil {
					return fmt.Errorf("%w\n(or say where Kafka is with --kafka)", err)
				}
				kafka = s.Addresses["kafka"]
			}
			return t.run(cmd.Context(), strings.Split(kafka, ","))
		},
	}
	f := cmd.Flags()
	f.StringVar(&kafka, "kafka", "", "brokers, host:port[,…] (default: of the stack that runs here)")
	f.StringSliceVar(&t.topics, "topic", event.Topics(), "only these topics")
	f.StringSliceVar(&t.types, "type", nil, "only these event types, for example order.created")
	f.StringVar(&t.subject, "subject", "", "only of this subject: an order id, or stock:<tenant>:<product>")
	f.BoolVar(&t.start, "from-start", false, "begin with the oldest that is kept")
	f.BoolVar(&t.once, "once", false, "end at what is the newest now")
	f.BoolVar(&t.asJSON, "json", false, "a JSON object per line")
	f.BoolVar(&t.private, "personal", false, "also addresses and e-mail")
	return cmd
}

func (t tail) run(ctx context.Context, brokers []string) error {
	at := kgo.NewOffset().AtEnd()
	if t.start || t.once {
		at = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(t.topics...), kgo.ConsumeResetOffset(at))
	if err != nil {
		return err
	}
	defer cl.Close()
	asked, cancel := context.WithTimeout(ctx, 10*time.Second)
	ends, err := kadm.NewClient(cl).ListEndOffsets(asked, t.topics...)
	cancel()
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("ask Kafka at %s for its topics: %w", strings.Join(brokers, ","), err)
	}
	missing := map[string]int64{} // what --once still waits for: the end of each partition
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			missing[fmt.Sprint(o.Topic, "/", o.Partition)] = o.Offset
		}
	})
	for !t.once || len(missing) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		records := fetches.Records()
		// Partitions come one after another; within what came at once, time is the
		// order in which it happened.
		slices.SortStableFunc(records, func(a, b *kgo.Record) int { return a.Timestamp.Compare(b.Timestamp) })
		for _, r := range records {
			partition := fmt.Sprint(r.Topic, "/", r.Partition)
			if end, waiting := missing[partition]; waiting && r.Offset+1 >= end {
				delete(missing, partition)
			}
			t.print(r)
		}
	}
	return nil
}

// personal are the fields that are left out.
var personal = []protoreflect.Name{"email", "address"}

func (t tail) print(r *kgo.Record) {
	m := stream.Message{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Timestamp}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, stream.Header{Key: h.Key, Value: h.Value})
	}
	e, err := stream.DecodeMessage(m)
	if err != nil {
		t.out.Line("%s %s/%d@%d key %q: %v", t.out.Paint(terminal.Red, "not an event:"), r.Topic, r.Partition, r.Offset, r.Key, err)
		return
	}
	if t.subject != "" && e.Subject != t.subject || len(t.types) > 0 && !slices.Contains(t.types, string(e.Type)) {
		return
	}
	data, err := t.decode(e)
	if err != nil {
		data = json.RawMessage(fmt.Sprintf("%q", err.Error()))
	}
	if t.asJSON {
		b, _ := json.Marshal(map[string]any{
			"topic": r.Topic, "partition": r.Partition, "offset": r.Offset, "id": e.ID, "type": e.Type, "source": e.Source,
			"subject": e.Subject, "seq": e.Seq, "tenant": e.Tenant, "time": e.Time, "traceparent": e.Traceparent, "data": data,
		})
		t.out.Line("%s", b)
		return
	}
	t.out.Line("%s %s %s %s %s", t.out.Paint(terminal.Dim, e.Time.Local().Format("15:04:05.000")), t.out.Paint(terminal.Bold, fmt.Sprintf("%-26s", e.Type)),
		fmt.Sprintf("%s #%d", e.Subject, e.Seq), data, t.out.Paint(terminal.Dim, fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)))
}

func (t tail) decode(e event.Event) (json.RawMessage, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(messageName(e.Type))
	if errors.Is(err, protoregistry.NotFound) {
		return nil, fmt.Errorf("there is no contract for %s here", e.Type)
	}
	if err != nil {
		return nil, err
	}
	m := kind.New()
	if err := proto.Unmarshal(e.Data, m.Interface()); err != nil {
		return nil, fmt.Errorf("not a %s: %w", kind.Descriptor().FullName(), err)
	}
	if !t.private {
		for _, name := range personal {
			if f := kind.Descriptor().Fields().ByName(name); f != nil {
				m.Clear(f)
			}
		}
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.Interface())
	if err != nil {
		return nil, err
	}
	// protojson varies its white space on purpose.
	return compact(b), nil
}

func compact(b []byte) json.RawMessage {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return b
	}
	out, err := json.Marshal(v)
	if err != nil {
		return b
	}
	return out
}

// messageName is the contract of an event type: order.payment_requested is
// waybill.order.v1.OrderPaymentRequested.
func messageName(t event.Type) protoreflect.FullName {
	var camel strings.Builder
	for word := range strings.FieldsFuncSeq(string(t), func(r rune) bool { return r == '.' || r == '_' }) {
		camel.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	noun, _, _ := strings.Cut(string(t), ".")
	return protoreflect.FullName("waybill." + noun + ".v1." + camel.String())
}
