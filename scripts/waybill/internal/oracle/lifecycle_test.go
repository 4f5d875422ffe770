package oracle

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The oracle's copy of the transition table is what the order service's own table renders to.
func TestMovesAreTheOrderServices(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../../docs/order-lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "## What moves an order")
	table, _, _ = strings.Cut(table, "\n## ")
	var want []string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || strings.HasPrefix(cells[1], "-") || strings.TrimSpace(cells[1]) == "from" {
			continue
		}
		from, event, to := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])
		event, _, _ = strings.Cut(event, " (") // a condition: the timeline does not show it
		want = append(want, from+" "+event+" "+to)
	}
	if len(want) < 20 {
		t.Fatalf("the document has %d lines: its form has changed", len(want))
	}
	var got []string
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		for _, event := range slices.Sorted(maps.Keys(moves[from])) {
			for _, to := range moves[from][event] {
				got = append(got, from+" "+event+" "+to)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Error(diff)
	}
	for _, line := range []struct {
		from, event, to string
		ok              bool
	}{
		{"pending", "inventory.reserved", "paying", true},
		{"paying", "payment.initiated", "paying", true}, // a line that changes nothing
		{"pending", "payment.processed", "paid", false},
		{"completed", "cancel", "cancelled", false},
	} {
		if allowed(line.from, line.event, line.to) != line.ok {
			t.Errorf("%v", line)
		}
	}
}
