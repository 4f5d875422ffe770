package proto_test

import (
	"os"
	"regexp"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	_ "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
)

// Every payload that docs/asyncapi.yaml names is a message of these contracts, and every event message is named there.
func TestAsyncAPINamesTheseMessages(t *testing.T) {
	raw, err := os.ReadFile("../docs/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := map[protoreflect.FullName]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ +message: (waybill\.\S+)$`).FindAllSubmatch(raw, -1) {
		name := protoreflect.FullName(m[1])
		named[name] = true
		if _, err := protoregistry.GlobalTypes.FindMessageByName(name); err != nil {
			t.Errorf("the document names %s: %v", name, err)
		}
	}
	protoregistry.GlobalTypes.RangeMessages(func(m protoreflect.MessageType) bool {
		d := m.Descriptor()
		// An event says which order it is about; what does not is a part of one.
		if d.ParentFile().Package().Parent() != "" && d.Fields().ByName("order_id") != nil && !named[d.FullName()] {
			t.Errorf("%s is in no channel of the document", d.FullName())
		}
		return true
	})
	if len(named) == 0 {
		t.Error("the document names no message")
	}
}
