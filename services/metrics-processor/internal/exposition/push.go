package exposition

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// pushEvery is the interval of remote write, and of the panes: more often would say the same.
const pushEvery = 10 * time.Second

// Push writes to a Prometheus-compatible store (remote write 1.0) until ctx ends. What cannot be written is not written later:
// the next time says the sums that then are.
func Push(ctx context.Context, a *aggregate.Aggregator, url string, client *http.Client, log *zap.Logger) error {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := push(ctx, a, url, client); err != nil && ctx.Err() == nil {
				log.Warn("aggregates not written", zap.Error(err))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func push(ctx context.Context, a *aggregate.Aggregator, url string, client *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, pushEvery)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(s2.EncodeSnappy(nil, request(a, time.Now()))))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("store answers %s", resp.Status)
	}
	return nil
}

// request is a prometheus.WriteRequest with the values that the text format has.
func request(a *aggregate.Aggregator, now time.Time) (out []byte) {
	var series, part []byte
	for _, f := range families(a, aggregate.Matcher{}) {
		for _, l := range f.lines {
			each(f.kind, l, func(suffix string, extra *aggregate.Label, v float64) {
				labels := []aggregate.Label{{Name: "__name__", Value: f.name + suffix}}
				for _, l := range l.labels {
					labels = append(labels, aggregate.Label{Name: name(l.Name, false), Value: l.Value})
				}
				if extra != nil {
					labels = append(labels, *extra)
				}
				slices.SortFunc(labels, func(x, y aggregate.Label) int { return bytes.Compare([]byte(x.Name), []byte(y.Name)) })
				series = series[:0]
				for _, l := range labels {
					part = field(field(part[:0], 1, []byte(l.Name)), 2, []byte(l.Value))
					series = field(series, 1, part)
				}
				part = append(part[:0], 1<<3|1)
				part = binary.LittleEndian.AppendUint64(part, math.Float64bits(v))
				part = append(part, 2<<3)
				part = binary.AppendUvarint(part, uint64(now.UnixMilli()))
				out = field(out, 1, field(series, 2, part))
			})
		}
	}
	return out
}

func field(b []byte, number byte, data []byte) []byte {
	b = append(b, number<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}
