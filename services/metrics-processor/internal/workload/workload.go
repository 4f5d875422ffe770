// Package workload is what the metrics processor and its peers are measured with: samples of one family with four labels,
// whose series follow a Zipf law (1.1) and whose values are lognormal around 50 ms. Each sample brings its label values in
// memory of its own, in the order of arrival, as a decoder would: nobody can know a series by an address.
package workload

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"
)

// Name is the family's name.
const Name = "http_request_duration_seconds"

// Labels are the names of its labels, in order.
var Labels = [4]string{"method", "region", "route", "service"}

// Workload is a stream of samples. The first Series of them touch each series once.
type Workload struct {
	Series int
	Rows   []string // four values a sample
	Values []float64
}

// New makes the same workload for the same arguments.
func New(series, samples int) *Workload {
	r := rand.New(rand.NewSource(1))
	methods := []string{"GET", "PUT", "POST", "DELETE", "PATCH"}
	regions := []string{"eu-west-1", "us-east-1", "us-west-2", "ap-south-1"}
	label := func(i int) [4]string {
		return [4]string{methods[i%5], regions[i/5%4], fmt.Sprintf("/api/v1/resource/%03d", i/1000), fmt.Sprintf("checkout-svc-%03d", i/20%50)}
	}
	perm, zipf := r.Perm(series), rand.NewZipf(r, 1.1, 1, uint64(series-1))
	all := make([]int, series+samples)
	var text []byte
	for i := range all {
		if all[i] = i; i >= series {
			all[i] = perm[zipf.Uint64()]
		}
		for _, v := range label(all[i]) {
			text = append(text, v...)
		}
	}
	long := string(text) // one string: each sample's bytes are its own
	w := &Workload{Series: series, Rows: make([]string, 0, 4*len(all)), Values: make([]float64, len(all))}
	for i, x := range all {
		for _, v := range label(x) {
			w.Rows, long = append(w.Rows, long[:len(v)]), long[len(v):]
		}
		// Six digits, so that text and binary carry the same.
		w.Values[i] = max(math.Round(math.Exp(math.Log(0.05)+r.NormFloat64())*1e6)/1e6, 1e-6)
	}
	return w
}

const (
	// BatchLen is the samples of a body or a call, Batches the bodies that are cycled through.
	BatchLen = 1000
	Batches  = 32
)

func (w *Workload) bodies(one func(b []byte, row []string, v float64) []byte) [][]byte {
	out := make([][]byte, Batches)
	for i := range out {
		for j := range BatchLen {
			k := w.Series + i*BatchLen + j
			out[i] = one(out[i], w.Rows[4*k:4*k+4], w.Values[k])
		}
	}
	return out
}

// StatsD writes DogStatsD lines.
func (w *Workload) StatsD() [][]byte {
	return w.bodies(func(b []byte, row []string, v float64) []byte {
		b = append(append(b, Name...), ':')
		b = append(strconv.AppendFloat(b, v, 'f', -1, 64), "|h|#"...)
		for i, x := range row {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, Labels[i]...), ':'), x...)
		}
		return append(b, '\n')
	})
}

// JSON writes an object a line.
func (w *Workload) JSON() [][]byte {
	now := time.Now().UnixMilli()
	return w.bodies(func(b []byte, row []string, v float64) []byte {
		b = append(b, `{"name":"`+Name+`","labels":{`...)
		for i, x := range row {
			if i > 0 {
				b = append(b, ',')
			}
			q, _ := json.Marshal(x)
			b = append(append(append(b, '"'), Labels[i]...), '"', ':')
			b = append(b, q...)
		}
		b = append(strconv.AppendFloat(append(b, `},"value":`...), v, 'f', -1, 64), `,"ts":`...)
		return append(strconv.AppendInt(b, now, 10), "}\n"...)
	})
}

func field(b []byte, n byte, data []byte) []byte {
	b = binary.AppendUvarint(append(b, n<<3|2), uint64(len(data)))
	return append(b, data...)
}

// RemoteWrite writes remote write 1.0 requests, compressed as the protocol has it.
func (w *Workload) RemoteWrite() [][]byte {
	now := time.Now().UnixMilli()
	out := w.bodies(func(b []byte, row []string, v float64) []byte {
		var s []byte
		label := func(k, v string) { s = field(s, 1, field(field(nil, 1, []byte(k)), 2, []byte(v))) }
		label("__name__", Name)
		for i, x := range row {
			label(Labels[i], x)
		}
		sample := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(v))
		return field(b, 1, field(s, 2, binary.AppendUvarint(append(sample, 2<<3), uint64(now))))
	})
	for i, b := range out {
		out[i] = s2.EncodeSnappy(nil, b)
	}
	return out
}

// OTLP writes export requests with one gauge.
func (w *Workload) OTLP() [][]byte {
	now := uint64(time.Now().UnixNano())
	points := w.bodies(func(b []byte, row []string, v float64) []byte {
		p := binary.LittleEndian.AppendUint64([]byte{3<<3 | 1}, now)
		p = binary.LittleEndian.AppendUint64(append(p, 4<<3|1), math.Float64bits(v))
		for i, x := range row {
			p = field(p, 7, field(field(nil, 1, []byte(Labels[i])), 2, field(nil, 1, []byte(x))))
		}
		return field(b, 1, p)
	})
	for i, b := range points {
		points[i] = field(nil, 1, field(nil, 2, field(nil, 2, field(field(nil, 1, []byte(Name)), 5, b))))
	}
	return points
}

// Batch is the i-th batch of the stream, over and over.
func (w *Workload) Batch(i int) (rows []string, values []float64) {
	n := (len(w.Values) - w.Series) / BatchLen
	from := w.Series + i%n*BatchLen
	return w.Rows[4*from : 4*(from+BatchLen)], w.Values[from : from+BatchLen]
}
