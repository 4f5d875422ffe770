package exposition

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/wire"
)

func filled(t *testing.T) *aggregate.Aggregator {
	src := &aggregate.Source{Name: "test"}
	a, err := aggregate.New(aggregate.Options{Series: 100}, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	now := time.Now().UnixMilli()
	a.NewVec(src, aggregate.KindDelta, "shop.clicks", "page-name").Writer().Record(now, []string{"a\"\\\n", "b"}, []float64{3, 4})
	a.NewVec(src, aggregate.KindSample, "took").Writer().Record(now, nil, []float64{1, 2, 3})
	a.NewVec(src, aggregate.KindSet, "users").Writer().Record(now, nil, []float64{aggregate.Member([]byte("a")), aggregate.Member([]byte("b")), aggregate.Member([]byte("a"))})
	a.NewVec(src, aggregate.KindGauge, "level").Writer().Record(now, nil, []float64{-5})
	return a
}

func TestTextIsReadByPrometheus(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, filled(t)); err != nil {
		t.Fatal(err)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(&b)
	if err != nil {
		t.Fatal(err)
	}
	if s := families["took"].Metric[0].Summary; s.GetSampleCount() != 3 || s.GetSampleSum() != 6 || len(s.Quantile) != len(Quantiles) {
		t.Errorf("took: %v", s)
	}
	if m := families["shop_clicks"].Metric; len(m) != 2 || m[0].Label[0].GetValue() != "a\"\\\n" || m[0].Counter.GetValue() != 3 {
		t.Errorf("shop_clicks: %v", m)
	}
	if families["users"].Metric[0].Gauge.GetValue() != 2 {
		t.Errorf("users: %v", families["users"])
	}
	if families["level"].Metric[0].Gauge.GetValue() != -5 {
		t.Errorf("level: %v", families["level"])
	}
}

// What is written to a store is what our own decoder reads.
func TestPush(t *testing.T) {
	into := &aggregate.Source{Name: "store"}
	store, err := aggregate.New(aggregate.Options{Series: 100}, into)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	status := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		b, err := s2.Decode(nil, b)
		if err != nil {
			t.Error(err)
		}
		if err := wire.NewRemoteWrite1(store, into).Decode(b); err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	if err := push(t.Context(), filled(t), server.URL, server.Client()); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	store.Sums(aggregate.Matcher{}, func(s aggregate.Sum) bool {
		if !strings.Contains(s.Identity.String(), "quantile") {
			got[s.Identity.String()] = s.Last
		}
		return true
	})
	want := map[string]float64{`shop_clicks{page_name="a\"\\\n"}`: 3, `shop_clicks{page_name="b"}`: 4, "took_count": 3, "took_sum": 6, "level": -5, "users": 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	status = http.StatusBadRequest
	if err := push(t.Context(), filled(t), server.URL, server.Client()); err == nil {
		t.Error("a refusal is no error")
	}
}
