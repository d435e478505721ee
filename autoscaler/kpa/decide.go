// Package kpa decides how many instances a revision should have: Knative's pod autoscaler algorithm as pure functions of what was
// seen, the settings and the time. Decide turns load into a number; Limit turns that number into what should be done, with bounds,
// first start and the way to zero; Explain says why in a user's words. The scaler (autoscaler/scale) calls them. The package does
// no I/O, reads no clock and imports no Kubernetes client.
//
// # What differs from Knative, and why
//
// Knative counts at the instances and moves its activator in and out of the path; excess burst capacity tells it when. In Weft every
// request passes a proxy that counts it and can park it, so that part of the algorithm is not there: target-burst-capacity and
// activator-capacity are validated and have no effect.
//
// The way to zero is shorter for the same reason. A revision is inactive when it has been active for a whole stable window and had
// no request in it. Knative then needs up to scale-to-zero-grace-period to program its network; requests here are parked from the
// first moment on, so nothing has to be programmed and the grace period, which is an upper bound, is never used up. The last
// instance stays for scale-to-zero-pod-retention-period, as in Knative, and goes at once when that is 0. A user sees an idle
// revision end after window + retention, which is never later than in Knative.
//
// Until load has been observed without a gap for one stable window, for example after a restart, nothing is scaled down, except by
// max-scale.
package kpa

import (
	"math"
	"time"

	"knative.dev/serving/pkg/apis/autoscaling"

	"github.com/weft-dev/weft/autoscaler/settings"
)

// Sample is what is known of a revision's load at one time.
type Sample struct {
	// Stable and Panic are the averages over the two windows, in the unit of the metric.
	Stable, Panic float64
	// Waiting is the number of requests that are waiting or in flight now. It counts only while no instance is ready: then the
	// averages, which look back, would be late.
	Waiting float64
	// Ready is the number of instances that can serve.
	Ready int32
}

// State is what one decision hands to the next. The zero value is that of a new revision.
type State struct {
	// PanicSince is when load was last over the panic threshold; zero outside a panic.
	PanicSince time.Time
	// PanicPeak is the most that was wanted in this panic.
	PanicPeak int32
	// Delayed are the wanted numbers that scale-down-delay still holds on to: ascending in time, descending in number.
	Delayed []Peak
}

// Peak is a number of instances and when it was wanted.
type Peak struct {
	At    time.Time
	Scale int32
}

// Restarted is the State in which a revision with ready instances is taken over from an autoscaler whose windows are lost: in panic
// when there are several, so that they stay until a whole window has been seen.
func Restarted(ready int32, now time.Time) State {
	if ready <= 1 {
		return State{}
	}
	return State{PanicSince: now, PanicPeak: ready}
}

// Decision is how many instances the load needs.
type Decision struct {
	// Scale is the number.
	Scale int32
	// Panic tells whether the panic window decided.
	Panic bool
	// Held tells that Scale is more than the load needs now: by a panic, or by scale-down-delay.
	Held bool
	// Limited tells that a rate kept Scale from following the load at once.
	Limited bool
	// Activated tells that activation-scale raised Scale.
	Activated bool
	// Sample is what was decided on.
	Sample Sample
	// Next is the State for the next decision.
	Next State
}

// Decide applies the algorithm of Knative's pod autoscaler (pkg/autoscaler/scaling in knative.dev/serving). It changes nothing that
// it is given.
func Decide(prev State, sample Sample, c settings.Settings, now time.Time) Decision {
	d := Decision{Sample: sample}
	// With no instance, steps are taken from one.
	ready := math.Max(1, float64(sample.Ready))
	// Rounding away from the present number lets a small rate still take a step.
	maxUp := math.Ceil(c.MaxScaleUpRate * ready)
	maxDown := 0.0
	if !c.Unreachable {
		maxDown = math.Floor(ready / c.MaxScaleDownRate)
	}
	needStable, needPanic := needs(sample, c)
	stable, panicked := step(needStable, maxDown, maxUp), step(needPanic, maxDown, maxUp)
	d.Limited = float64(stable) < needStable || (float64(panicked) < needPanic && needPanic > needStable)
	if c.ActivationScale > 1 {
		d.Activated = raise(&stable, needStable, c.ActivationScale)
		d.Activated = raise(&panicked, needPanic, c.ActivationScale) || d.Activated
	}

	next := State{PanicSince: prev.PanicSince, PanicPeak: prev.PanicPeak}
	switch over := needPanic/ready >= c.PanicThreshold; {
	case over:
		next.PanicSince = now
	case !prev.PanicSince.IsZero() && now.Sub(prev.PanicSince) > c.StableWindow:
		// By now the surge is in the stable average.
		next = State{}
	}
	d.Scale = stable
	if d.Panic = !next.PanicSince.IsZero(); d.Panic {
		needed := max(stable, panicked)
		next.PanicPeak = max(next.PanicPeak, needed)
		d.Scale, d.Held = next.PanicPeak, next.PanicPeak > needed
	}
	if c.ScaleDownDelay > 0 && !c.Unreachable {
		next.Delayed = record(prev.Delayed, Peak{At: now, Scale: d.Scale}, c.ScaleDownDelay)
		d.Held = d.Held || next.Delayed[0].Scale > d.Scale
		d.Scale = next.Delayed[0].Scale
	}
	d.Next = next
	return d
}

// needs are the instances that the averages ask for, without any limit.
func needs(s Sample, c settings.Settings) (stable, panicked float64) {
	stableLoad, panicLoad := s.Stable, s.Panic
	waiting := s.Ready == 0 && s.Waiting > 0
	if waiting && c.Metric == autoscaling.Concurrency {
		stableLoad, panicLoad = math.Max(stableLoad, s.Waiting), math.Max(panicLoad, s.Waiting)
	}
	stable, panicked = perInstance(stableLoad, c.Target), perInstance(panicLoad, c.Target)
	if waiting {
		stable, panicked = math.Max(1, stable), math.Max(1, panicked)
	}
	return stable, panicked
}

// perInstance divides and rounds up, after rounding away what floating point adds.
func perInstance(load, target float64) float64 {
	const digits = 1e6
	return math.Ceil(math.Round(load*digits) / digits / target)
}

// step keeps a need within what one decision may do.
func step(need, maxDown, maxUp float64) int32 {
	return int32(math.Min(math.Min(math.Max(need, maxDown), maxUp), math.MaxInt32))
}

// raise lifts scale to least when there is any need.
func raise(scale *int32, need float64, least int32) bool {
	if need <= 0 || *scale >= least {
		return false
	}
	*scale = least
	return true
}

// record adds a peak and drops those that are over: by time, and by a later one that is as high. The first that remains is the
// highest of the delay.
func record(peaks []Peak, p Peak, delay time.Duration) []Peak {
	kept := make([]Peak, 0, len(peaks)+1)
	for _, q := range peaks {
		if p.At.Sub(q.At) < delay && q.Scale > p.Scale {
			kept = append(kept, q)
		}
	}
	return append(kept, p)
}
