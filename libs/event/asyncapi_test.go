package event

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// document is what the test reads of docs/asyncapi.yaml (AsyncAPI 3, https://www.asyncapi.com/docs/reference/specification/v3.0.0).
type document struct {
	Channels map[string]struct {
		Address  string
		Messages map[string]struct {
			Ref string `yaml:"$ref"`
		}
	}
	Components struct {
		Messages map[string]struct {
			Name    string
			Headers struct {
				Properties map[string]struct{ Const string }
			}
			Payload struct {
				Schema struct{ Message, File string }
			}
		}
		MessageTraits map[string]struct {
			Headers struct{ Required []string }
		} `yaml:"messageTraits"`
	}
}

func readDocument(t *testing.T) document {
	t.Helper()
	raw, err := os.ReadFile("../../docs/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// The document and the catalogue say the same, so neither can drift.
func TestAsyncAPISaysWhatTheCatalogueSays(t *testing.T) {
	doc := readDocument(t)
	want, got := map[string][]Type{}, map[string][]Type{}
	for _, typ := range Types() {
		want[typ.Topic()] = append(want[typ.Topic()], typ)
	}
	for name, channel := range doc.Channels {
		if channel.Address != name {
			t.Errorf("channel %s has address %s", name, channel.Address)
		}
		for typ, ref := range channel.Messages {
			got[name] = append(got[name], Type(typ))
			const prefix = "#/components/messages/"
			message, ok := doc.Components.Messages[ref.Ref[len(prefix):]]
			if !ok {
				t.Errorf("%s refers to %s, which is not there", typ, ref.Ref)
			}
			if message.Name != typ || message.Headers.Properties["ce_type"].Const != typ {
				t.Errorf("message %s is named %s and has ce_type %s", typ, message.Name, message.Headers.Properties["ce_type"].Const)
			}
			if _, err := os.Stat("../../" + message.Payload.Schema.File); err != nil {
				t.Errorf("%s: %v", typ, err)
			}
		}
	}
	for _, m := range []map[string][]Type{want, got} {
		for _, types := range m {
			slices.Sort(types)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("topics and types, catalogue - document +:\n%s", diff)
	}
}

// The headers that the document demands are those of the envelope (CloudEvents 1.0, Kafka binary mode, with the
// extensions ce_tenantid and ce_aggregateseq, and W3C trace context).
func TestAsyncAPIDemandsTheEnvelope(t *testing.T) {
	want := []string{"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_tenantid", "ce_aggregateseq", "content-type", "traceparent"}
	if diff := cmp.Diff(want, readDocument(t).Components.MessageTraits["cloudevent"].Headers.Required); diff != "" {
		t.Errorf("required headers, want - got +:\n%s", diff)
	}
}
