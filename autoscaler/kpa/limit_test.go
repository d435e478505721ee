package kpa

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/autoscaler/settings"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	long := time.Hour
	for _, tt := range []struct {
		name   string
		scale  int32
		s      Situation
		change func(*settings.Settings)
		want   Plan
	}{
		{name: "within bounds", scale: 3, s: Situation{Phase: Active, Replicas: 2, Observed: long, Initialized: true}, want: Plan{Want: 3, Replicas: 3}},
		{
			name: "min-scale", scale: 1, s: Situation{Phase: Active, Replicas: 2, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.MinScale = 2 }, want: Plan{Want: 2, Replicas: 2, Cause: ByMinScale},
		},
		{
			name: "min-scale and no load", scale: 0, s: Situation{Phase: Active, Replicas: 2, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.MinScale = 2 }, want: Plan{Want: 2, Replicas: 2, Cause: ByMinScale},
		},
		{
			name: "max-scale", scale: 9, s: Situation{Phase: Active, Replicas: 2, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.MaxScale = 4 }, want: Plan{Want: 4, Replicas: 4, Cause: ByMaxScale},
		},
		{
			name: "max-scale lowered, load not known yet", scale: 1, s: Situation{Phase: Active, Replicas: 9, Observed: time.Second, Initialized: true},
			change: func(c *settings.Settings) { c.MaxScale = 4 }, want: Plan{Want: 4, Replicas: 4, Cause: ByMaxScale, Check: 59 * time.Second},
		},
		{
			name: "initial-scale until it is reached", scale: 1, s: Situation{Phase: Activating, Since: ago(time.Second), Replicas: 1, Observed: long},
			change: func(c *settings.Settings) { c.InitialScale = 3 }, want: Plan{Want: 3, Replicas: 3, Cause: ByInitialScale},
		},
		{
			name: "initial-scale has been reached", scale: 1, s: Situation{Phase: Active, Replicas: 3, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.InitialScale = 3 }, want: Plan{Want: 1, Replicas: 1},
		},
		{
			name: "initial-scale of an unreachable revision", scale: 0, s: Situation{Phase: Activating, Since: ago(time.Second), Replicas: 0, Observed: long},
			change: func(c *settings.Settings) { c.InitialScale, c.Unreachable = 3, true }, want: Plan{Cause: Idle},
		},
		{
			name: "a new revision has its first instance", scale: 0, s: Situation{Phase: Activating, Since: ago(time.Minute), Replicas: 0, Observed: long},
			want: Plan{Want: 1, Replicas: 1, Cause: Holding, Check: 9*time.Minute + 30*time.Second + time.Millisecond},
		},
		{
			name: "a new revision without a Deployment yet", scale: 0, s: Situation{Phase: Activating, Since: now, Replicas: Unknown},
			want: Plan{Want: 1, Replicas: 1, Cause: Holding, Check: 10*time.Minute + 30*time.Second + time.Millisecond},
		},
		{
			name: "a new revision with initial-scale 0", scale: 0, s: Situation{Phase: Inactive, Since: now, Replicas: 0, Initialized: true},
			change: func(c *settings.Settings) { c.InitialScale = 0 }, want: Plan{Cause: Idle},
		},
		{
			name: "starting goes on without load", scale: 0, s: Situation{Phase: Activating, Since: ago(time.Minute), Replicas: 2, Observed: long, Initialized: true},
			want: Plan{Want: 2, Replicas: 2, Cause: Holding, Check: 9*time.Minute + 30*time.Second + time.Millisecond},
		},
		{
			name: "starting has failed", scale: 0, s: Situation{Phase: Activating, Since: ago(10*time.Minute + 31*time.Second), Replicas: 1, Observed: long, Initialized: true},
			want: Plan{Cause: TimedOut},
		},
		{
			name: "starting has failed but requests wait", scale: 1, s: Situation{Phase: Activating, Since: ago(time.Hour), Replicas: 1, Observed: long, Initialized: true},
			want: Plan{Want: 1, Replicas: 1},
		},
		{
			name: "not active for a window", scale: 0, s: Situation{Phase: Active, Since: ago(20 * time.Second), Replicas: 1, Observed: long, Initialized: true},
			want: Plan{Want: 1, Replicas: 1, Cause: Holding, Check: 40 * time.Second},
		},
		{
			name: "active for a window", scale: 0, s: Situation{Phase: Active, Since: ago(time.Minute), Replicas: 1, Observed: long, Initialized: true},
			want: Plan{Cause: Idle},
		},
		{
			name: "retention begins", scale: 0, s: Situation{Phase: Active, Since: ago(time.Minute), Replicas: 3, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.Retention = 10 * time.Second }, want: Plan{Replicas: 1, Cause: Idle, Check: 10 * time.Second},
		},
		{
			name: "retention goes on", scale: 0, s: Situation{Phase: Inactive, Since: ago(4 * time.Second), Replicas: 1, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.Retention = 10 * time.Second }, want: Plan{Replicas: 1, Cause: Idle, Check: 6 * time.Second},
		},
		{
			name: "retention is over", scale: 0, s: Situation{Phase: Inactive, Since: ago(10 * time.Second), Replicas: 1, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.Retention = 10 * time.Second }, want: Plan{Cause: Idle},
		},
		{
			name: "at zero within the retention", scale: 0, s: Situation{Phase: Inactive, Since: ago(4 * time.Second), Replicas: 0, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.Retention = 10 * time.Second }, want: Plan{Cause: Idle, Check: 6 * time.Second},
		},
		{
			name: "zero is not permitted", scale: 0, s: Situation{Phase: Active, Since: ago(time.Hour), Replicas: 1, Observed: long, Initialized: true},
			change: func(c *settings.Settings) { c.ScaleToZero = false }, want: Plan{Want: 1, Replicas: 1, Cause: ByNoZero},
		},
		{
			name: "after a restart nothing goes down", scale: 1, s: Situation{Phase: Active, Since: ago(time.Hour), Replicas: 4, Observed: 10 * time.Second, Initialized: true},
			want: Plan{Want: 4, Replicas: 4, Cause: Holding, Check: 50 * time.Second},
		},
		{
			name: "after a restart things go up", scale: 9, s: Situation{Phase: Active, Since: ago(time.Hour), Replicas: 4, Initialized: true},
			want: Plan{Want: 9, Replicas: 9},
		},
		{
			name: "after a restart at zero", scale: 0, s: Situation{Phase: Inactive, Since: ago(time.Hour), Replicas: 0, Initialized: true}, want: Plan{Cause: Idle},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := standard()
			if tt.change != nil {
				tt.change(&c)
			}
			if diff := cmp.Diff(tt.want, Limit(Decision{Scale: tt.scale}, tt.s, c, now)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func arbitrarySituation(random *rand.Rand) Situation {
	return Situation{
		Phase: Phase(random.IntN(3)), Since: now.Add(-time.Duration(random.IntN(900)) * time.Second), Initialized: random.IntN(2) == 0,
		Replicas: int32(random.IntN(30)) - 1, Observed: time.Duration(random.IntN(200)) * time.Second,
	}
}

func TestNeverAboveMaxNorBelowMin(t *testing.T) {
	t.Parallel()
	check(t, func(random *rand.Rand) bool {
		state, sample, c := arbitrary(random)
		s := arbitrarySituation(random)
		p := Limit(Decide(state, sample, c, now), s, c, now)
		// initial-scale above max-scale is refused at admission.
		if c.MaxScale > 0 && c.InitialScale > c.MaxScale {
			return true
		}
		// With zero forbidden or a first instance to come, one is kept even if max-scale would be lower, which it cannot be.
		if c.MaxScale > 0 && (p.Want > c.MaxScale || p.Replicas > c.MaxScale) && p.Cause != Holding {
			t.Logf("above max-scale: %+v\n%+v\n%+v", p, s, c)
			return false
		}
		if p.Replicas < c.MinScale && p.Replicas != Unknown {
			t.Logf("below min-scale: %+v\n%+v\n%+v", p, s, c)
			return false
		}
		return true
	})
}

// TestAlwaysLooksAgain makes sure that no plan waits for something without a time at which it is over.
func TestAlwaysLooksAgain(t *testing.T) {
	t.Parallel()
	check(t, func(random *rand.Rand) bool {
		_, _, c := arbitrary(random)
		s := arbitrarySituation(random)
		p := Limit(Decision{}, s, c, now)
		if p.Cause == Holding && p.Check <= 0 {
			t.Logf("%+v\n%+v\n%+v", p, s, c)
			return false
		}
		return p.Check >= 0
	})
}

func TestProgress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		s           Situation
		want, ready int32
		min, first  int32
		phase       Phase
		initialized bool
	}{
		{name: "new and none ready", want: 1, first: 1, phase: Activating},
		{name: "new and ready", want: 1, ready: 1, first: 1, phase: Active, initialized: true},
		{name: "new and some of initial-scale ready", want: 3, ready: 2, first: 3, phase: Activating},
		{name: "new and some of min-scale ready", want: 3, ready: 2, first: 1, min: 3, phase: Activating},
		{name: "new with initial-scale 0", phase: Inactive, initialized: true},
		{name: "nothing wanted", s: Situation{Phase: Active, Initialized: true}, ready: 1, first: 1, phase: Inactive, initialized: true},
		{name: "wanted and none ready", s: Situation{Phase: Inactive, Initialized: true}, want: 1, first: 1, phase: Activating, initialized: true},
		{name: "fewer than min-scale", s: Situation{Phase: Active, Initialized: true}, want: 2, ready: 1, min: 2, first: 1, phase: Activating, initialized: true},
		{name: "enough although more are wanted", s: Situation{Phase: Active, Initialized: true}, want: 9, ready: 1, first: 1, phase: Active, initialized: true},
		{name: "initial-scale no longer counts", s: Situation{Phase: Active, Initialized: true}, want: 1, ready: 1, first: 5, phase: Active, initialized: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := standard(func(c *settings.Settings) { c.MinScale, c.InitialScale = tt.min, tt.first })
			phase, initialized := Progress(tt.s, Plan{Want: tt.want}, tt.ready, c)
			if phase != tt.phase || initialized != tt.initialized {
				t.Errorf("got %v, %v; want %v, %v", phase, initialized, tt.phase, tt.initialized)
			}
		})
	}
}
