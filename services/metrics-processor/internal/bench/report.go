package bench

import (
	"fmt"
	"html"
	"io"
	"strings"
	"text/tabwriter"
)

func text(out io.Writer, rows []Row, notes []string, dir string) {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "work\tseries\tgoroutines\tM samples/s\tallocs/sample\tp50 of 1,000\tp99\tpeer\tM samples/s\tratio\t")
	for _, r := range rows {
		peer, ratio := "", ""
		if r.PeerRate != nil {
			peer, ratio = fmt.Sprintf("%.2f", *r.PeerRate/1e6), fmt.Sprintf("%.1f", *r.Ratio)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%.3f\t%v\t%v\t%s\t%s\t%s\t\n", r.Work, r.Series, r.Goroutines, r.Rate/1e6, r.Allocs, r.p50, r.p99, r.Peer, peer, ratio)
	}
	_ = t.Flush()
	for _, n := range notes {
		fmt.Fprintln(out, n)
	}
	fmt.Fprintf(out, "report, CPU and heap profile: %s\n", dir)
}

// bar is one bar of a chart.
type bar struct {
	name string
	rate float64
	ours bool
}

// chart draws horizontal bars as SVG.
func chart(title string, bars []bar) string {
	most := 0.0
	for _, b := range bars {
		most = max(most, b.rate)
	}
	var s strings.Builder
	height := 40 + 26*len(bars)
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="720" height="%d" viewBox="0 0 720 %d" font-family="sans-serif" font-size="13">`, height, height)
	fmt.Fprintf(&s, `<rect width="720" height="%d" fill="white"/><text x="8" y="22" font-weight="bold">%s</text>`, height, html.EscapeString(title))
	for i, b := range bars {
		y, color := 34+26*i, "#9aa5b1"
		if b.ours {
			color = "#1a73e8"
		}
		width := 380 * b.rate / max(most, 1)
		fmt.Fprintf(&s, `<text x="220" y="%d" text-anchor="end">%s</text><rect x="228" y="%d" width="%.1f" height="18" fill="%s"/><text x="%.1f" y="%d">%.2f M/s</text>`,
			y+14, html.EscapeString(b.name), y, width, color, 234+width, y+14, b.rate/1e6)
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// charts are a chart for each work and number of series, at two goroutines.
func charts(rows []Row) []string {
	var out []string
	for i := 0; i < len(rows); {
		r := rows[i]
		var bars []bar
		for ; i < len(rows) && rows[i].Work == r.Work && rows[i].Series == r.Series && rows[i].Goroutines == r.Goroutines; i++ {
			if len(bars) == 0 {
				bars = append(bars, bar{"waybill", r.Rate, true})
			}
			if rows[i].PeerRate != nil {
				bars = append(bars, bar{rows[i].Peer, *rows[i].PeerRate, false})
			}
		}
		if r.Goroutines == 2 {
			out = append(out, chart(fmt.Sprintf("%s, %d series, %d goroutines", r.Work, r.Series, r.Goroutines), bars))
		}
	}
	return out
}

// overview is one picture of all works at two goroutines: how many times as fast as the fastest peer ours is.
func overview(rows []Row) string {
	var bars []bar
	for i := 0; i < len(rows); {
		r, best := rows[i], rows[i]
		for ; i < len(rows) && rows[i].Work == r.Work && rows[i].Series == r.Series && rows[i].Goroutines == r.Goroutines; i++ {
			if rows[i].PeerRate != nil && (best.PeerRate == nil || *rows[i].PeerRate > *best.PeerRate) {
				best = rows[i]
			}
		}
		if r.Goroutines == 2 && best.PeerRate != nil {
			bars = append(bars, bar{fmt.Sprintf("%s, %d series", r.Work, r.Series), r.Rate, true}, bar{best.Peer, *best.PeerRate, false})
		}
	}
	return chart("Samples a second on two goroutines, beside the fastest peer of each work", bars)
}

func report(rows []Row, notes []string, profiles string) []byte {
	var s strings.Builder
	s.WriteString("<!doctype html><meta charset=utf-8><title>metrics-processor bench</title><h1>metrics-processor</h1>\n")
	for _, c := range charts(rows) {
		s.WriteString("<p>" + c)
	}
	s.WriteString("<pre>")
	var t strings.Builder
	text(&t, rows, notes, ".")
	s.WriteString(html.EscapeString(t.String() + "\n" + profiles))
	s.WriteString("</pre>\n")
	return []byte(s.String())
}
