package scale

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"knative.dev/serving/pkg/apis/autoscaling"

	"github.com/weft-dev/weft/autoscaler/kpa"
	"github.com/weft-dev/weft/autoscaler/window"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// defaultSpan is the window of a revision whose settings are not known yet.
const defaultSpan = time.Minute

// present is what one proxy has of a revision at a time.
type present struct {
	requests uint32
	at       time.Time
}

// revision is what the Scaler knows of one revision.
type revision struct {
	scaler *Scaler
	key    types.NamespacedName
	// counted says that the revision is one of Scaler.unknown; Scaler.mu guards it.
	counted bool

	// mu guards what is below.
	mu sync.Mutex
	// known is set by the first Observation; gone by Forget.
	known, gone bool
	firstSeen   time.Time
	seen        Observation
	// replicas is what the Deployment has been asked for, by us or by others, and version when; before is what it was until the
	// patch that is on its way.
	replicas, before int32
	version          string

	// load is nil without load; now is what proxies have at present.
	load *window.Window
	now  map[string]present

	state       kpa.State
	phase       kpa.Phase
	since       time.Time
	initialized bool
	// initializedAt is when the initial scale was reached, if that was seen.
	initializedAt time.Time
	timedOut      bool
	want          int32
	reported      Status
	events        []Event
	// reason says why the last change of scale was made, or is empty when none was since the start.
	reason string

	// patching says that a patch is on its way; failures counts those in a row that failed.
	patching bool
	failures int
	retryAt  time.Time
	// wake is the wake that the next patch carries out.
	wake *Wake
	// timer fires at timerAt; it is nil when nothing is to be looked at.
	timer   *time.Timer
	timerAt time.Time
}

// report takes one proxy's load of the revision.
func (r *revision) report(proxy string, load *telemetry.RevisionLoad, received time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return
	}
	r.record(proxy, load, received)
	switch {
	case !r.known:
		r.arm(defaultSpan)
	case load.GetWake():
		if r.wake == nil {
			r.wake = &Wake{Namespace: r.key.Namespace, Revision: r.key.Name, Received: received}
		}
		r.decide(time.Now())
		r.notify()
	case load.GetParked() > 0:
		// Somebody waits; the next tick would be late.
		r.decide(time.Now())
		r.notify()
	default:
		r.arm(tick)
	}
}

func (r *revision) record(proxy string, load *telemetry.RevisionLoad, received time.Time) {
	if r.load == nil {
		r.load = window.New(r.span())
	}
	if r.now == nil {
		r.now = map[string]present{}
	}
	interval := time.Duration(load.GetIntervalMs()) * time.Millisecond
	value := load.GetAverageConcurrency()
	if r.seen.Settings.Metric == autoscaling.RPS && interval > 0 {
		value = float64(load.GetRequests()) / interval.Seconds()
	}
	begun := r.load.Empty(received.Add(-interval))
	r.load.Add(received.Add(-interval), received, value)
	if begun && r.known && r.phase == kpa.Active && r.replicas != 0 {
		// Instances were there and had nothing to do; a short burst must not count as if it had always been.
		r.load.Begin(received.Add(-min(r.observed(received), received.Sub(r.since))))
	}
	r.now[proxy] = present{requests: load.GetInFlight() + load.GetParked(), at: received}
}

// span is how long loads are kept.
func (r *revision) span() time.Duration {
	if !r.known {
		return defaultSpan
	}
	return max(r.seen.Settings.StableWindow, r.seen.Settings.PanicWindow)
}

// observe takes what the API server says, decides, and returns what to report there.
func (r *revision) observe(o Observation, now time.Time) (Status, []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// What was recorded is in the unit of the metric, and until a revision is known that is concurrency.
	if (r.seen.Settings.Metric == autoscaling.RPS) != (o.Settings.Metric == autoscaling.RPS) {
		r.load = nil
	}
	if !r.known {
		r.phase, r.since, r.initialized = o.Phase, o.Since, o.Initialized
		if o.Initialized {
			r.state = kpa.Restarted(o.Ready, now)
		}
		r.want = kpa.Unknown
	}
	r.known, r.seen = true, o
	if r.load != nil {
		r.load.Resize(r.span())
	}
	r.observeReplicas(o)
	r.decide(now)
	r.reported = r.status()
	events := r.events
	r.events = nil
	return r.reported, events
}

// observeReplicas takes the Deployment's scale, unless a patch of ours is newer than what was read.
func (r *revision) observeReplicas(o Observation) {
	if r.patching {
		return
	}
	if order, err := resourceversion.CompareResourceVersion(o.Version, r.version); err == nil && order < 0 && o.Replicas != kpa.Unknown {
		return
	}
	r.replicas, r.version = o.Replicas, o.Version
}

func (r *revision) status() Status {
	return Status{
		Want: r.want, Ready: r.seen.Ready, Phase: r.phase, Since: r.since, Initialized: r.initialized, TimedOut: r.timedOut,
		Reason: r.reason,
	}
}

// decide works out what is needed now and has it done; r.mu is held.
func (r *revision) decide(now time.Time) {
	if r.gone || !r.known {
		return
	}
	c := r.seen.Settings
	d := kpa.Decide(r.state, r.sample(now), c, now)
	situation := r.situation(now)
	plan := kpa.Limit(d, situation, c, now)
	r.state, r.want = d.Next, plan.Want
	phase, initialized := kpa.Progress(situation, plan, r.seen.Ready, c)
	if initialized && !r.initialized {
		r.initializedAt = now
	}
	r.initialized = initialized
	if phase != r.phase {
		r.phase, r.since, r.timedOut = phase, now, plan.Cause == kpa.TimedOut
	}
	if r.due(plan, d, now) {
		r.patch(plan, d, now)
	}
	if !r.patching {
		r.wake = nil
	}
	r.schedule(plan, now)
}

func (r *revision) situation(now time.Time) kpa.Situation {
	return kpa.Situation{
		Phase: r.phase, Since: r.since, Initialized: r.initialized, Replicas: r.replicas, Observed: r.observed(now),
	}
}

// notify has the PodAutoscaler reconciled if there is anything new to report; r.mu is held.
func (r *revision) notify() {
	if r.known && !r.gone && (r.status() != r.reported || len(r.events) > 0) {
		r.scaler.options.Changed(r.key)
	}
}

// due tells whether a plan asks for a patch now.
func (r *revision) due(plan kpa.Plan, d kpa.Decision, now time.Time) bool {
	switch {
	case r.patching || now.Before(r.retryAt) || plan.Replicas < 0 || plan.Replicas == r.replicas:
		return false
	case r.replicas == kpa.Unknown:
		// The Deployment will be seen soon; only a request that waits is worth a guess that it is already there.
		return d.Sample.Waiting > 0 && plan.Replicas > 0
	default:
		return true
	}
}

// sample averages the load.
func (r *revision) sample(now time.Time) kpa.Sample {
	c := r.seen.Settings
	s := kpa.Sample{Ready: r.seen.Ready}
	if r.replicas == 0 {
		// What is still ready is on its way out.
		s.Ready = 0
	}
	if r.load != nil {
		mean := r.load.Mean
		if c.Weighted {
			mean = r.load.Weighted
		}
		s.Stable, s.Panic = mean(now, c.StableWindow), mean(now, c.PanicWindow)
	}
	for proxy, p := range r.now {
		if now.Sub(p.at) > fresh {
			delete(r.now, proxy)
			continue
		}
		s.Waiting += float64(p.requests)
	}
	return s
}

// observed is for how long this revision's load has been known, counted anew when its first instances have become ready: they get
// a whole window to show what they are for.
func (r *revision) observed(now time.Time) time.Duration {
	since := r.firstSeen
	if r.initializedAt.After(since) {
		since = r.initializedAt
	}
	return min(r.scaler.options.Observed(now), now.Sub(since))
}

// schedule arranges the next look, or none.
func (r *revision) schedule(plan kpa.Plan, now time.Time) {
	if r.load != nil && r.load.Empty(now) {
		r.load = nil
	}
	if len(r.now) == 0 {
		r.now = nil
	}
	checks := []time.Duration{plan.Check}
	if r.load != nil {
		// The way to zero begins when the window is empty, not at the tick after.
		checks = append(checks, max(r.load.Until().Sub(now), time.Millisecond))
	}
	if r.moving() {
		checks = append(checks, tick)
	}
	if plan.Cause == kpa.Holding && r.observed(now) == 0 {
		// Nobody reports; a proxy that connects tells nothing by itself.
		checks = append(checks, r.seen.Settings.StableWindow)
	}
	if now.Before(r.retryAt) {
		checks = append(checks, r.retryAt.Sub(now))
	}
	r.stopTimer()
	checks = slices.DeleteFunc(checks, func(d time.Duration) bool { return d <= 0 })
	if len(checks) > 0 {
		r.arm(slices.Min(checks))
	}
}

// moving tells whether the decision changes with time alone.
func (r *revision) moving() bool {
	switch {
	case r.load != nil || r.now != nil || len(r.state.Delayed) > 1:
		return true
	default:
		return !r.state.PanicSince.IsZero() && r.replicas != 0
	}
}

// arm has the revision looked at after a time, or sooner if that is already arranged; r.mu is held.
func (r *revision) arm(after time.Duration) {
	at := time.Now().Add(after)
	if r.timer != nil && !at.Before(r.timerAt) {
		return
	}
	r.stopTimer()
	var timer *time.Timer
	timer = time.AfterFunc(after, func() { r.fire(&timer) })
	r.timer, r.timerAt = timer, at
}

func (r *revision) stopTimer() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

// fire looks at the revision, unless the timer has been replaced meanwhile.
func (r *revision) fire(timer **time.Timer) {
	if !r.scaler.enter() {
		return
	}
	defer r.scaler.leave()
	r.mu.Lock()
	if r.timer != *timer {
		r.mu.Unlock()
		return
	}
	r.timer = nil
	now := time.Now()
	forgotten := !r.known && r.firstSeen.Add(defaultSpan).Before(now) && (r.load == nil || r.load.Empty(now))
	switch {
	case r.known:
		r.decide(now)
		r.notify()
	case !forgotten:
		r.arm(defaultSpan)
	}
	r.mu.Unlock()
	if forgotten {
		r.scaler.abandon(r)
	}
}
