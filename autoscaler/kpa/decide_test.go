package kpa

import (
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"knative.dev/serving/pkg/apis/autoscaling"

	"github.com/weft-dev/weft/autoscaler/settings"
)

var now = time.Unix(1_800_000_000, 0)

// standard are the settings of a revision with a target of 10 requests at a time, all else being default.
func standard(change ...func(*settings.Settings)) settings.Settings {
	c := settings.Settings{
		Metric: autoscaling.Concurrency, Target: 10, Total: 10 / 0.7, StableWindow: time.Minute, PanicWindow: 6 * time.Second,
		PanicThreshold: 2, MaxScaleUpRate: 1000, MaxScaleDownRate: 2, InitialScale: 1, ScaleToZero: true, ProgressDeadline: 10 * time.Minute,
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		prev   State
		sample Sample
		change func(*settings.Settings)
		// want leaves out Sample, and Next unless it is a panic.
		want Decision
	}{
		{name: "no load", sample: Sample{Ready: 1}, want: Decision{Scale: 0}},
		{name: "no load, none ready", sample: Sample{}, want: Decision{Scale: 0}},
		{name: "stable load rounds up", sample: Sample{Stable: 21, Panic: 21, Ready: 3}, want: Decision{Scale: 3}},
		{name: "exactly the target", sample: Sample{Stable: 20, Panic: 20, Ready: 2}, want: Decision{Scale: 2}},
		{name: "floating point does not add an instance", sample: Sample{Stable: 20.0000000001, Panic: 20, Ready: 2}, want: Decision{Scale: 2}},
		{name: "steps down by half at most", sample: Sample{Stable: 1, Panic: 1, Ready: 10}, want: Decision{Scale: 5}},
		{name: "steps down by the rate", sample: Sample{Stable: 1, Panic: 1, Ready: 10}, change: func(c *settings.Settings) { c.MaxScaleDownRate = 5 }, want: Decision{Scale: 2}},
		{name: "unreachable steps down at once", sample: Sample{Ready: 10}, change: func(c *settings.Settings) { c.Unreachable = true }, want: Decision{Scale: 0}},
		{
			name: "steps up by the rate, rounded up", sample: Sample{Stable: 90, Panic: 30, Ready: 2}, change: func(c *settings.Settings) { c.MaxScaleUpRate = 1.1 },
			want: Decision{Scale: 3, Limited: true},
		},
		{
			name: "over the threshold is panic", sample: Sample{Stable: 15, Panic: 40, Ready: 2},
			want: Decision{Scale: 4, Panic: true, Next: State{PanicSince: now, PanicPeak: 4}},
		},
		{
			name: "under the threshold is no panic", sample: Sample{Stable: 15, Panic: 30, Ready: 2}, want: Decision{Scale: 2},
		},
		{
			name: "in panic, the stable window may decide", prev: State{PanicSince: now.Add(-time.Second), PanicPeak: 2},
			sample: Sample{Stable: 50, Panic: 10, Ready: 2}, want: Decision{Scale: 5, Panic: true, Next: State{PanicSince: now.Add(-time.Second), PanicPeak: 5}},
		},
		{
			name: "in panic, nothing goes down", prev: State{PanicSince: now.Add(-time.Minute), PanicPeak: 8}, sample: Sample{Stable: 10, Panic: 0, Ready: 8},
			want: Decision{Scale: 8, Panic: true, Held: true, Next: State{PanicSince: now.Add(-time.Minute), PanicPeak: 8}},
		},
		{
			name: "panic ends after a stable window", prev: State{PanicSince: now.Add(-time.Minute - 1), PanicPeak: 8},
			sample: Sample{Stable: 50, Panic: 50, Ready: 8}, want: Decision{Scale: 5},
		},
		{
			name: "panic goes on while over", prev: State{PanicSince: now.Add(-2 * time.Minute), PanicPeak: 4}, sample: Sample{Stable: 40, Panic: 80, Ready: 4},
			want: Decision{Scale: 8, Panic: true, Next: State{PanicSince: now, PanicPeak: 8}},
		},
		{name: "activation-scale", sample: Sample{Stable: 1, Panic: 1, Ready: 1}, change: func(c *settings.Settings) { c.ActivationScale = 3 }, want: Decision{Scale: 3, Activated: true}},
		{name: "activation-scale without load", sample: Sample{Ready: 1}, change: func(c *settings.Settings) { c.ActivationScale = 3 }, want: Decision{Scale: 0}},
		{
			name: "one waits and none runs", sample: Sample{Waiting: 1}, want: Decision{Scale: 1},
		},
		{
			name: "many wait and none runs", sample: Sample{Waiting: 35},
			want: Decision{Scale: 4, Panic: true, Next: State{PanicSince: now, PanicPeak: 4}},
		},
		{name: "what is in flight does not count while one is ready", sample: Sample{Stable: 1, Panic: 1, Waiting: 500, Ready: 1}, want: Decision{Scale: 1}},
		{
			name: "one waits for a revision that scales by rps", sample: Sample{Waiting: 500},
			change: func(c *settings.Settings) { c.Metric, c.Target = autoscaling.RPS, 140 }, want: Decision{Scale: 1},
		},
		{name: "a tiny target", sample: Sample{Stable: 1, Panic: 1, Ready: 60}, change: func(c *settings.Settings) { c.Target = 0.01 }, want: Decision{Scale: 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := standard()
			if tt.change != nil {
				tt.change(&c)
			}
			if diff := cmp.Diff(tt.want, Decide(tt.prev, tt.sample, c, now), cmpopts.IgnoreFields(Decision{}, "Sample")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestScaleDownDelay(t *testing.T) {
	t.Parallel()
	c := standard(func(c *settings.Settings) { c.ScaleDownDelay = 10 * time.Second })
	var state State
	for _, tt := range []struct {
		second int
		load   float64
		want   int32
	}{
		{0, 30, 3},
		{2, 20, 3},
		{4, 25, 3},
		{8, 10, 3},
		{9, 10, 3},
		{10, 10, 3}, // The need of 3 at second 4 still holds.
		{13, 10, 3},
		{14, 10, 1},
		{15, 20, 2},
		{20, 0, 2},
		{24, 0, 2},
		{25, 0, 1},
		{36, 0, 0},
	} {
		ready := int32(2)
		if tt.second >= 36 {
			ready = 1
		}
		d := Decide(state, Sample{Stable: tt.load, Panic: tt.load, Ready: ready}, c, now.Add(time.Duration(tt.second)*time.Second))
		if d.Scale != tt.want {
			t.Errorf("second %d: scale %d, want %d", tt.second, d.Scale, tt.want)
		}
		state = d.Next
	}
	c.Unreachable = true
	if d := Decide(state, Sample{Ready: 1}, c, now.Add(40*time.Second)); d.Scale != 0 {
		t.Errorf("an unreachable revision is delayed: scale %d", d.Scale)
	}
}

func TestRestarted(t *testing.T) {
	t.Parallel()
	if d := Decide(Restarted(5, now), Sample{Ready: 5}, standard(), now.Add(time.Minute)); d.Scale != 5 {
		t.Errorf("several instances do not stay for a window after a restart: scale %d", d.Scale)
	}
	if d := Decide(Restarted(5, now), Sample{Ready: 5}, standard(), now.Add(61*time.Second)); d.Scale != 2 {
		t.Errorf("several instances stay for longer than a window after a restart: scale %d", d.Scale)
	}
	if got := Restarted(1, now); !cmp.Equal(got, State{}) {
		t.Errorf("one instance starts a panic: %v", got)
	}
}

// arbitrary makes any valid state of affairs.
func arbitrary(random *rand.Rand) (State, Sample, settings.Settings) {
	c := standard(func(c *settings.Settings) {
		c.Target = 0.01 + random.Float64()*200
		c.MaxScaleUpRate = 1.0001 + random.Float64()*20
		c.MaxScaleDownRate = 1.0001 + random.Float64()*20
		c.PanicThreshold = 1.1 + random.Float64()*8
		c.Unreachable = random.IntN(4) == 0
		c.MinScale = int32(random.IntN(3))
		if random.IntN(2) == 0 {
			c.MaxScale = c.MinScale + 1 + int32(random.IntN(20))
		}
		if random.IntN(3) == 0 {
			c.ActivationScale = 2 + int32(random.IntN(5))
		}
		if random.IntN(3) == 0 {
			c.ScaleDownDelay = time.Duration(random.IntN(60)) * time.Second
		}
		if random.IntN(3) == 0 {
			c.Metric = autoscaling.RPS
		}
		c.InitialScale = int32(random.IntN(4))
		c.ScaleToZero = random.IntN(4) > 0
	})
	s := Sample{Stable: random.Float64() * 3000, Panic: random.Float64() * 3000, Waiting: float64(random.IntN(50)), Ready: int32(random.IntN(30))}
	if random.IntN(3) == 0 {
		s.Stable, s.Panic, s.Waiting = 0, 0, 0
	}
	state := State{}
	if random.IntN(3) == 0 {
		state = State{PanicSince: now.Add(-time.Duration(random.IntN(120)) * time.Second), PanicPeak: int32(random.IntN(40))}
	}
	if c.ScaleDownDelay > 0 && random.IntN(2) == 0 {
		state.Delayed = []Peak{{At: now.Add(-time.Duration(random.IntN(90)) * time.Second), Scale: int32(random.IntN(40))}}
	}
	return state, s, c
}

func check(t *testing.T, property func(random *rand.Rand) bool) {
	t.Helper()
	f := func(seed uint64) bool { return property(rand.New(rand.NewPCG(seed, 7))) }
	if err := quick.Check(f, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func TestMoreLoadNeverMeansFewer(t *testing.T) {
	t.Parallel()
	check(t, func(random *rand.Rand) bool {
		state, sample, c := arbitrary(random)
		more := sample
		more.Stable += random.Float64() * 500
		more.Panic += random.Float64() * 500
		more.Waiting += float64(random.IntN(100))
		less, moreScale := Decide(state, sample, c, now), Decide(state, more, c, now)
		if moreScale.Scale < less.Scale {
			t.Logf("%+v\n%+v\n%+v: %d, then %d", state, sample, c, less.Scale, moreScale.Scale)
			return false
		}
		return true
	})
}

func TestNeverDownInPanic(t *testing.T) {
	t.Parallel()
	check(t, func(random *rand.Rand) bool {
		state, _, c := arbitrary(random)
		// The delay holds on to needs from before the panic, and lets go of them in it.
		c.ScaleDownDelay = 0
		peak := int32(0)
		for i := range 100 {
			_, sample, _ := arbitrary(random)
			d := Decide(state, sample, c, now.Add(time.Duration(i)*2*time.Second))
			if !d.Panic {
				peak = 0
			}
			if d.Panic && d.Scale < peak {
				t.Logf("in panic, %d after %d", d.Scale, peak)
				return false
			}
			if d.Panic {
				peak = d.Scale
			}
			state = d.Next
		}
		return true
	})
}

func TestStepsAreBounded(t *testing.T) {
	t.Parallel()
	check(t, func(random *rand.Rand) bool {
		_, sample, c := arbitrary(random)
		c.ScaleDownDelay = 0
		d := Decide(State{}, sample, c, now)
		ready := max(1, float64(sample.Ready))
		most := max(int32(ready*c.MaxScaleUpRate)+1, c.ActivationScale)
		least := int32(0)
		if !c.Unreachable {
			least = int32(ready / c.MaxScaleDownRate)
		}
		return d.Scale >= least && d.Scale <= most
	})
}

// TestDecideIsPure runs the same decision twice.
func TestDecideIsPure(t *testing.T) {
	t.Parallel()
	check(t, func(random *rand.Rand) bool {
		state, sample, c := arbitrary(random)
		before := append([]Peak(nil), state.Delayed...)
		first, second := Decide(state, sample, c, now), Decide(state, sample, c, now)
		return cmp.Equal(first, second) && cmp.Equal(before, state.Delayed, cmpopts.EquateEmpty())
	})
}
