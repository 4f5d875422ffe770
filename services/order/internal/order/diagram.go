package order

import (
	"fmt"
	"strings"
)

// Diagram renders the table as a Mermaid state diagram (https://mermaid.js.org/syntax/stateDiagram.html).
func Diagram() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n    [*] --> pending: order.created\n")
	for _, r := range lifecycle {
		fmt.Fprintf(&b, "    %s --> %s: %s", r.from, r.to, r.event)
		for i, e := range r.effects {
			sep := " + "
			if i == 0 {
				sep = " / "
			}
			b.WriteString(sep + string(e))
		}
		b.WriteString("\n")
	}
	for _, s := range Statuses() {
		if s.Final() {
			fmt.Fprintf(&b, "    %s --> [*]\n", s)
		}
	}
	return b.String()
}

// Document is the page docs/order-lifecycle.md: the diagram, the table, and what changes nothing.
func Document() string {
	var b strings.Builder
	b.WriteString("# Lifecycle of an order\n\n" +
		"Rendered from the table in `services/order/internal/order/lifecycle.go` by\n" +
		"`go test ./internal/order -run TestDiagram -update`; do not edit. A test fails where the two differ.\n\n" +
		"```mermaid\n" + Diagram() + "```\n\n## What moves an order\n\n| from | event | to | sends |\n|---|---|---|---|\n")
	for _, r := range lifecycle {
		var sent []string
		for _, e := range r.effects {
			sent = append(sent, "`"+string(e)+"`")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.from, r.event, r.to, strings.Join(sent, " "))
	}
	b.WriteString("\n## What changes nothing\n\nLate, told twice, or only a line of the timeline. Any other pair is a bug: its event is parked until a person has looked.\n\n" +
		"| event | in |\n|---|---|\n")
	for _, s := range stale {
		var in []string
		for _, x := range s.in {
			in = append(in, string(x))
		}
		fmt.Fprintf(&b, "| %s | %s |\n", s.event, strings.Join(in, ", "))
	}
	return b.String()
}
