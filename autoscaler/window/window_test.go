package window

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

type load struct{ from, to, value float64 }

func filled(span time.Duration, loads ...load) *Window {
	w := New(span)
	for i, l := range loads {
		w.Add(at(l.from), at(l.to), l.value)
		if i > 0 && loads[0].value == 0 {
			w.Begin(at(loads[0].from))
		}
	}
	return w
}

func near(t *testing.T, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-6 {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMean(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		loads []load
		now   float64
		over  time.Duration
		want  float64
	}{
		{name: "nothing recorded", now: 10, over: time.Minute, want: 0},
		{name: "one second", loads: []load{{0, 1, 5}}, now: 1, over: time.Minute, want: 5},
		{name: "part of a second", loads: []load{{0.2, 0.3, 5}}, now: 0.3, over: time.Minute, want: 5},
		{name: "a partial window averages over what is there", loads: []load{{0, 1, 10}, {1, 2, 20}}, now: 2, over: time.Minute, want: 15},
		{name: "two proxies add up", loads: []load{{0, 1, 3}, {0, 1, 4}}, now: 1, over: time.Minute, want: 7},
		{name: "reports across seconds", loads: []load{{0.5, 1.5, 8}, {1.5, 2.5, 8}, {2.5, 3.5, 8}}, now: 3.5, over: 2 * time.Second, want: 8},
		{name: "only the last part", loads: []load{{0, 10, 1}, {10, 12, 7}}, now: 12, over: 2 * time.Second, want: 7},
		{name: "a report that is a little old is the present", loads: []load{{0, 10, 4}}, now: 10.9, over: 6 * time.Second, want: 4},
		{name: "silence is no load", loads: []load{{0, 10, 6}}, now: 14, over: 6 * time.Second, want: 3},
		{name: "after a window of silence there is nothing", loads: []load{{0, 10, 6}}, now: 70, over: time.Minute, want: 0},
		{name: "after that it starts anew", loads: []load{{0, 10, 6}, {100, 101, 9}}, now: 101, over: time.Minute, want: 9},
		{name: "a gap within the window counts", loads: []load{{0, 1, 10}, {9, 10, 10}}, now: 10, over: time.Minute, want: 2},
		{name: "the window slides", loads: []load{{0, 60, 1}, {60, 90, 3}}, now: 90, over: time.Minute, want: 2},
		{name: "a report that is longer than the window", loads: []load{{0, 600, 2}}, now: 600, over: time.Minute, want: 2},
		{name: "a report without length is ignored", loads: []load{{0, 1, 2}, {1, 1, 99}}, now: 1, over: time.Minute, want: 2},
		{name: "not a number is ignored", loads: []load{{0, 1, 2}, {0, 1, math.NaN()}, {0, 1, math.Inf(1)}, {0, 1, -3}}, now: 1, over: time.Minute, want: 2},
		{name: "no load before, and known", loads: []load{{0, 54, 0}, {54, 60, 10}}, now: 60, over: time.Minute, want: 1},
		{name: "no load long before, and known", loads: []load{{0, 100, 0}, {100, 106, 10}}, now: 106, over: time.Minute, want: 1},
		{name: "a late report of another proxy", loads: []load{{4, 5, 2}, {1, 2, 5}}, now: 5, over: time.Minute, want: 7.0 / 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near(t, filled(time.Minute, tt.loads...).Mean(at(tt.now), tt.over), tt.want)
		})
	}
}

func TestWeighted(t *testing.T) {
	t.Parallel()
	// Six seconds weigh 1-(1-0.9999)^(1/6) each of what is left.
	c6 := 1 - math.Pow(0.0001, 1.0/6)
	for _, tt := range []struct {
		name  string
		loads []load
		now   float64
		over  time.Duration
		want  float64
	}{
		{name: "nothing recorded", now: 10, over: time.Minute, want: 0},
		{name: "a constant load fills the weights", loads: []load{{0, 60, 10}}, now: 60, over: 6 * time.Second, want: 9.999},
		{name: "the newest second weighs most", loads: []load{{0, 59, 0}, {59, 60, 10}}, now: 60, over: 6 * time.Second, want: 10 * c6},
		{name: "older seconds weigh less", loads: []load{{0, 58, 0}, {58, 59, 10}, {59, 60, 0}}, now: 60, over: 6 * time.Second, want: 10 * c6 * (1 - c6)},
		{name: "long windows keep one fifth", loads: []load{{0, 59, 0}, {59, 60, 10}}, now: 60, over: time.Minute, want: 2},
		{name: "upstream's example", loads: []load{{0, 2, 5}, {2, 4, 10}}, now: 4, over: 60 * time.Second, want: 10*.2 + 10*.2*.8 + 5*.2*.64 + 5*.2*.512},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near(t, filled(time.Minute, tt.loads...).Weighted(at(tt.now), tt.over), tt.want)
		})
	}
}

// TestMeanIsBetweenLeastAndMost holds for any loads at any times, however they are cut into reports.
func TestMeanIsBetweenLeastAndMost(t *testing.T) {
	t.Parallel()
	property := func(seed uint64, spanSeconds uint8) bool {
		random := rand.New(rand.NewPCG(seed, 1))
		span := time.Duration(6+int(spanSeconds)%120) * time.Second
		w, now := New(span), random.Float64()
		least, most := math.Inf(1), 0.0
		for range 200 {
			length, value := random.Float64()*1.5, random.Float64()*100
			w.Add(at(now), at(now+length), value)
			now += length
			least, most = min(least, value), max(most, value)
			for _, over := range []time.Duration{time.Second, span / 10, span} {
				if mean := w.Mean(at(now), over); mean < least-1e-6 || mean > most+1e-6 {
					t.Logf("mean %v over %v is not in [%v, %v]", mean, over, least, most)
					return false
				}
				if weighted := w.Weighted(at(now), over); weighted < 0 || weighted > most+1e-6 {
					t.Logf("weighted %v over %v is not in [0, %v]", weighted, over, most)
					return false
				}
			}
		}
		return true
	}
	if err := quick.Check(property, &quick.Config{MaxCount: 15}); err != nil {
		t.Error(err)
	}
}

// TestResizeKeepsTheRecent compares with a Window that always had the size.
func TestResizeKeepsTheRecent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		from, to time.Duration
	}{
		{name: "shrink", from: 2 * time.Minute, to: 20 * time.Second},
		{name: "grow", from: 20 * time.Second, to: 2 * time.Minute},
		{name: "same", from: time.Minute, to: time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := New(tt.from)
			for i := range 300 {
				w.Add(at(float64(i)), at(float64(i+1)), float64(i%7))
			}
			w.Resize(tt.to)
			over := min(tt.from, tt.to)
			want := New(tt.to)
			for i := range 300 {
				want.Add(at(float64(i)), at(float64(i+1)), float64(i%7))
			}
			near(t, w.Mean(at(300), over), want.Mean(at(300), over))
			w.Add(at(300), at(301), 50)
			want.Add(at(300), at(301), 50)
			near(t, w.Mean(at(301), time.Second), want.Mean(at(301), time.Second))
		})
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	w := New(time.Minute)
	if !w.Empty(start) {
		t.Error("a new window is not empty")
	}
	w.Add(at(0), at(1), 1)
	if w.Empty(at(60.9)) {
		t.Error("empty before the span is over")
	}
	w.Add(at(1), at(2), 0)
	if got, want := w.Until(), at(61); !got.Equal(want) {
		t.Errorf("empty at %v, want %v", got, want)
	}
	if !w.Empty(at(61)) {
		t.Error("not empty after the span")
	}
}

func BenchmarkMean(b *testing.B) {
	w := New(time.Minute)
	for i := range 60 {
		w.Add(at(float64(i)), at(float64(i+1)), 3)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.Mean(at(60), time.Minute)
	}
}
