package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// row is a run in the ledger.
type row struct {
	Date, Seed, Commit, Broker string
	Minutes                    float64
	// Numbers in the order of the table's columns.
	Orders, Kills, Pauses, Network, Restarts, Power, Outside int
	Verdict                                                  string
}

const ledgerHead = `# Chaos: runs and what came of them

Written by ` + "`waybill chaos`" + `, a row a run, whatever its verdict; the sums are made of the rows. A run starts two replicas of
every service and all parts as processes of their own, with a proxy on every edge; lets the load of RELIABILITY 4 run while the
nemesis plays the seed's schedule; heals; waits until the platform rests; and has the oracle (` + "`waybill verify`" + `) check every
invariant. Kills are kill -9 of our processes one by one; restarts are kill -9 of PostgreSQL, Kafka or Redis; a power cut is
kill -9 of everything at once and counts once. **clean**: every invariant holds, and every rare path was taken.
**inconclusive**: every invariant holds, but a path that is named was not taken. A violated run names the invariants; its
fix is in the history of the repository. The same seed gives the same faults, not the same interleaving.

    waybill chaos --seed 7 --minutes 3        # make chaos: 20 minutes on each broker, and a control run

`

var columns = []string{"date (UTC)", "seed", "commit", "broker", "minutes", "orders", "kills", "pauses", "network faults", "restarts", "power cuts", "faults outside", "verdict"}

func (r row) numbers() []int {
	return []int{r.Orders, r.Kills, r.Pauses, r.Network, r.Restarts, r.Power, r.Outside}
}

func (r row) line() string {
	cells := []string{r.Date, r.Seed, r.Commit, r.Broker, strconv.FormatFloat(r.Minutes, 'f', 1, 64)}
	for _, n := range r.numbers() {
		cells = append(cells, strconv.Itoa(n))
	}
	return "| " + strings.Join(append(cells, r.Verdict), " | ") + " |\n"
}

func parseRow(line string) (r row, err error) {
	cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	if len(cells) != len(columns) {
		return r, fmt.Errorf("%d columns, not %d: %s", len(cells), len(columns), line)
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	r.Date, r.Seed, r.Commit, r.Broker, r.Verdict = cells[0], cells[1], cells[2], cells[3], cells[12]
	if r.Minutes, err = strconv.ParseFloat(cells[4], 64); err != nil {
		return r, err
	}
	for i, n := range []*int{&r.Orders, &r.Kills, &r.Pauses, &r.Network, &r.Restarts, &r.Power, &r.Outside} {
		if *n, err = strconv.Atoi(cells[5+i]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// enter adds a run to the ledger, which is made where there is none.
func enter(path string, r row) error {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var rows []row
	for line := range strings.Lines(string(b)) {
		if len(line) > 3 && line[0] == '|' && line[2] >= '0' && line[2] <= '9' {
			old, err := parseRow(line)
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			rows = append(rows, old)
		}
	}
	return os.WriteFile(path, []byte(render(append(rows, r))), 0o644)
}

func render(rows []row) string {
	var b strings.Builder
	b.WriteString(ledgerHead)
	b.WriteString("| " + strings.Join(columns, " | ") + " |\n|" + strings.Repeat("---|", len(columns)) + "\n")
	sum := row{}
	verdicts := map[string]int{}
	for _, r := range rows {
		b.WriteString(r.line())
		sum.Minutes += r.Minutes
		for i, n := range []*int{&sum.Orders, &sum.Kills, &sum.Pauses, &sum.Network, &sum.Restarts, &sum.Power, &sum.Outside} {
			*n += r.numbers()[i]
		}
		word, _, _ := strings.Cut(r.Verdict, ":")
		verdicts[word]++
	}
	cells := []string{"**sum**", "", "", "", "**" + strconv.FormatFloat(sum.Minutes, 'f', 1, 64) + "**"}
	for _, n := range sum.numbers() {
		cells = append(cells, "**"+strconv.Itoa(n)+"**")
	}
	var said []string
	for _, v := range []string{Clean, Inconclusive, Violated, Unchecked} {
		if n := verdicts[v]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, v))
		}
	}
	cells = append(cells, strings.Join(slices.Compact(said), ", "))
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	return b.String()
}
