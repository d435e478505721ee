package record

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	t.Parallel()
	samples := make([]time.Duration, 0, 20)
	for i := 20; i >= 1; i-- {
		samples = append(samples, time.Duration(i))
	}
	for _, tc := range []struct {
		name string
		q    float64
		want time.Duration
	}{
		{"median of 20", 0.5, 10},
		{"95th of 20", 0.95, 19},
		{"maximum", 1, 20},
		{"minimum", 0, 1},
	} {
		if got := Percentile(samples, tc.q); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	if got := Percentile(nil, 0.5); got != 0 {
		t.Errorf("without samples: %d, want 0", got)
	}
}

func TestMissed(t *testing.T) {
	t.Parallel()
	r := Result{Bars: []Bar{{Name: "holds", Measured: 1, Limit: 1}, {Name: "does not", Measured: 1.1, Limit: 1}}}
	if got := r.Missed(); len(got) != 1 || got[0] != "does not" {
		t.Errorf("missed bars are %q, want the second", got)
	}
}
