package scale

import (
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/weft-dev/weft/autoscaler/kpa"
)

const (
	// firstRetry and lastRetry bound the time between attempts at a patch that fails.
	firstRetry = 20 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// patch sends a plan on its way; r.mu is held. Until the answer comes, the Deployment counts as scaled: a second wake does nothing.
func (r *revision) patch(plan kpa.Plan, d kpa.Decision, now time.Time) {
	if !r.scaler.enter() {
		return
	}
	r.patching, r.before, r.replicas = true, r.replicas, plan.Replicas
	wake := r.wake
	r.wake = nil
	if wake != nil {
		wake.Decided, wake.From, wake.To = now, r.before, plan.Replicas
	}
	target, c := r.seen.Target, r.seen.Settings
	go func() {
		defer r.scaler.leave()
		sent := time.Now()
		version, err := r.scaler.options.Patcher.Scale(r.scaler.ctx, target, plan.Replicas)
		answered := time.Now()
		if wake != nil {
			wake.Sent, wake.Answered, wake.Err = sent, answered, err
			r.scaler.woke(*wake)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		from := r.before
		r.patching = false
		if err != nil {
			r.failed(target, plan, err, answered)
		} else {
			r.failures, r.retryAt, r.version = 0, time.Time{}, version
			if from != kpa.Unknown {
				r.reason = kpa.Explain(from, plan.Replicas, d, plan, c)
				r.events = append(r.events, Event{Up: plan.Replicas > from, Note: r.reason})
			}
		}
		r.decide(answered)
		r.notify()
	}()
}

// failed arranges another attempt; r.mu is held.
func (r *revision) failed(target Target, plan kpa.Plan, err error, now time.Time) {
	r.replicas = r.before
	r.scaler.failures.Add(1)
	if apierrors.IsNotFound(err) {
		// Its creation will be seen.
		r.replicas = kpa.Unknown
	}
	wait := min(firstRetry<<min(r.failures, 10), lastRetry)
	r.failures++
	r.retryAt = now.Add(wait)
	if r.scaler.ctx.Err() != nil || r.gone {
		return
	}
	r.scaler.options.Logger.Warn("patching scale, trying again", "namespace", target.Namespace, "deployment", target.Name,
		"replicas", plan.Replicas, "after", wait, "error", err)
}
