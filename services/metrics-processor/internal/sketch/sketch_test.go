package sketch

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func numbers() *rapid.Generator[[]float64] {
	one := rapid.OneOf(rapid.Float64Range(-1e6, 1e6), rapid.Float64Range(1e-300, 1e300), rapid.Just(0.0), rapid.Float64Range(0.001, 10))
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) float64 {
		v := one.Draw(t, "v")
		if math.Abs(v) < 2.3e-308 { // below, the format itself has no relative precision
			return 0
		}
		return v
	}), 1, 200)
}

func of(vs []float64) *Sketch {
	s := new(Sketch)
	for _, v := range vs {
		s.Add(Key(v), 1)
	}
	return s
}

func TestQuantilesAreWithinOnePercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vs := numbers().Draw(t, "values")
		s := of(vs)
		slices.Sort(vs)
		for _, q := range []float64{0, 0.5, 0.9, 0.95, 0.99, 1} {
			want, got := vs[int(q*float64(len(vs)-1))], s.Quantile(q)
			if math.Abs(got-want) > RelativeError*math.Abs(want)*(1+1e-9) {
				t.Fatalf("q%v: %v, exactly %v", q, got, want)
			}
		}
	})
}

func TestMergedIsTheSameAsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := numbers().Draw(t, "x"), numbers().Draw(t, "y")
		merged, one := of(x), of(slices.Concat(x, y))
		merged.Merge(of(y))
		if diff := cmp.Diff(one.Append(nil), merged.Append(nil)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestRunsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s, want Sketch
		for range rapid.IntRange(1, 4).Draw(t, "runs") {
			key := rapid.Int32Range(1, 40).Draw(t, "key")
			run := rapid.SliceOfN(rapid.Uint8Range(0, 3), 0, 30).Draw(t, "run")
			var carries []uint16
			if rapid.Bool().Draw(t, "carries") {
				carries = rapid.SliceOfN(rapid.Uint16Range(0, 2), len(run), len(run)).Draw(t, "carry")
			}
			s.AddRun(key, run, carries)
			for i, n := range run {
				want.Add(key+int32(i), uint64(n))
				if carries != nil {
					want.Add(key+int32(i), uint64(carries[i])<<8)
				}
			}
		}
		if diff := cmp.Diff(want.Append(nil), s.Append(nil)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestReadGivesBackWhatAppendWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := of(numbers().Draw(t, "values")).Append(nil)
		var s Sketch
		rest, err := s.Read(append(slices.Clone(b), 7))
		if err != nil || len(rest) != 1 {
			t.Fatal(err, rest)
		}
		if diff := cmp.Diff(b, s.Append(nil)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add(of([]float64{1, 2, -3, 0}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Sketch
		if _, err := s.Read(b); err == nil && !slices.IsSorted(s.keys) {
			t.Error("keys out of order")
		}
	})
}
