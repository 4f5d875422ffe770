package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/nemesis"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
)

// The ledger's sums are those of its rows, however many runs wrote into it.
func TestLedgerAddsUp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "chaos.md")
	rows := []row{
		{"2026-11-22 21:00", "7", "abc1234", "embedded", 20, 24000, 91, 30, 120, 9, 6, 40, Clean},
		{"2026-11-22 21:30", "8", "abc1234+", "apache", 20.5, 20100, 85, 22, 99, 8, 5, 31, Violated + ": I-STOCK-2"},
		{"2026-11-22 22:00", "9", "abc1235", "embedded", 1.5, 2300, 10, 3, 6, 1, 0, 4, Inconclusive + ": a late capture refunded"},
	}
	for _, r := range rows {
		if err := enter(path, r); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.HasPrefix(text, ledgerHead) {
		t.Error("the head is missing")
	}
	sum := "| **sum** |  |  |  | **42.0** | **46400** | **186** | **55** | **225** | **18** | **11** | **75** | 1 clean, 1 inconclusive, 1 violated |\n"
	if !strings.HasSuffix(text, sum) {
		t.Errorf("the last line of\n%s is not %s", text, sum)
	}
	var got []row
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| 2026") {
			r, err := parseRow(line)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedLedgerIsNotOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "chaos.md")
	damaged := "| 2026-11-22 21:00 | 7 | abc |\n"
	if err := os.WriteFile(path, []byte(damaged), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := enter(path, row{Date: "2026-11-22 22:00"}); err == nil {
		t.Error("it was written")
	}
	if b, _ := os.ReadFile(path); string(b) != damaged {
		t.Errorf("it says %q now", b)
	}
}

// Every call that plan knows of is an edge, of each replica.
func TestEdges(t *testing.T) {
	t.Parallel()
	edges := Edges(2)
	for _, want := range []string{"client>gateway", "order>postgres", "order-2>kafka", "gateway-2>metrics-processor", "payment>provider", "shipping-2>carrier", "notification>smtp", "sandbox>payment", "inventory-2>order"} {
		if !slices.Contains(edges, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if sorted := slices.Sorted(slices.Values(edges)); len(slices.Compact(sorted)) != len(edges) {
		t.Error("an edge is listed twice")
	}
	if got := Processes(2); len(got) != 2*len(plan.Services)+1 || got[len(got)-1] != "sandbox" {
		t.Errorf("processes: %v", got)
	}
}

func TestFabricIsIncompleteWithoutEveryEdge(t *testing.T) {
	t.Parallel()
	f := newFabric(0, 1)
	defer f.close()
	for edge := range f.ports {
		f.ports[edge] = 0 // whatever is free
	}
	if via := f.route("order", "inventory", []string{"127.0.0.1:1"}); via == "127.0.0.1:1" {
		t.Error("the order service goes around its proxy")
	}
	if via := f.route("order", "inventory", []string{"127.0.0.1:1"}); via != f.proxies["order>inventory"].Addr {
		t.Error("an edge has two proxies")
	}
	if err := f.complete(); err == nil || !strings.Contains(err.Error(), "order>kafka") {
		t.Errorf("complete: %v", err)
	}
	f.route("order", "mars", []string{"127.0.0.1:1"})
	if err := f.complete(); err == nil || !strings.Contains(err.Error(), "no edge order>mars") {
		t.Errorf("an edge that nobody planned: %v", err)
	}
}

// Counters that began anew with a process add up, as increase() of Prometheus does.
func TestProbeAddsUpOverRestarts(t *testing.T) {
	t.Parallel()
	p := newProbe(map[string]string{"order": "http://127.0.0.1:1/readyz", "sandbox": "http://127.0.0.1:2/readyz"})
	if diff := cmp.Diff(map[string]string{"order": "http://127.0.0.1:1/metrics"}, p.urls); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{
		"waybill_outbox_relay_takeovers_total 2\nwaybill_inbox_events_total{group=\"g\",outcome=\"duplicate\",type=\"a\"} 5\n",
		"waybill_outbox_relay_takeovers_total 3\nwaybill_inbox_events_total{group=\"g\",outcome=\"duplicate\",type=\"a\"} 5\n",
		"waybill_outbox_relay_takeovers_total 1\nwaybill_inbox_events_total{group=\"g\",outcome=\"applied\",type=\"a\"} 9\n", // started again
	} {
		p.read("order", strings.NewReader("# HELP waybill_outbox_relay_takeovers_total x\n"+text))
	}
	p.read("order-2", strings.NewReader("waybill_outbox_relay_takeovers_total 1\nwaybill_outbox_relay_takeovers_total_other 7\n"))
	if n := p.total("waybill_outbox_relay_takeovers_total"); n != 5 {
		t.Errorf("%d take-overs, want 3+1 of one and 1 of the other", n)
	}
	if n := p.total("waybill_inbox_events_total", `outcome="duplicate"`); n != 5 {
		t.Errorf("%d duplicates", n)
	}
}

func TestMissedGates(t *testing.T) {
	t.Parallel()
	if got := Missed([]Gate{{"a", 1}, {"b", 0}, {"c", 0}}); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("missed: %v", got)
	}
}

// Schedules of runs that once failed are kept, and name nothing that is not there any more.
func TestCommittedSchedulesCanBePlayed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../testdata/schedules/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no schedules: %v", err)
	}
	for _, file := range files {
		s, err := nemesis.Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		targets := slices.Concat(Processes(s.Replicas), Edges(s.Replicas), []string{"", "postgres", "kafka", "redis"})
		for i, a := range s.Actions {
			if !slices.Contains(targets, a.Target) {
				t.Errorf("%s, action %d: there is no %s", file, i, a.Target)
			}
		}
	}
}
