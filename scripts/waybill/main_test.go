package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/waybill-dev/waybill/libs/event"
)

// Every verb that people see says what it does and how it is used.
func TestEveryVerbHasHelp(t *testing.T) {
	t.Parallel()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
			return
		}
		if c.Short == "" || (c.HasParent() && !strings.Contains(c.Example, "waybill "+strings.TrimPrefix(c.CommandPath(), "waybill "))) {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

// Every event type finds its contract by its name alone.
func TestMessageNames(t *testing.T) {
	t.Parallel()
	for _, typ := range event.Types() {
		if _, err := protoregistry.GlobalTypes.FindMessageByName(messageName(typ)); err != nil {
			t.Errorf("%s: %s: %v", typ, messageName(typ), err)
		}
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	if _, err := ports(20000, true, nil); err == nil {
		t.Error("two ways to choose ports are one too many")
	}
	p, err := ports(20000, false, []string{"order=8081"})
	if err != nil || p["order"] != 8081 || p["gateway"] != 20080 {
		t.Errorf("%v %v", p, err)
	}
}

// Each case ends in a status of the contract, and those that fail say why.
func TestCases(t *testing.T) {
	t.Parallel()
	for name, k := range cases {
		switch k.ends {
		case "completed":
			if k.reason != "" {
				t.Errorf("%s completes and has a reason", name)
			}
		case "failed", "cancelled", "attention":
			if k.reason == "" {
				t.Errorf("%s has no reason", name)
			}
		default:
			t.Errorf("%s ends %q", name, k.ends)
		}
	}
}
