package probe

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Kind is what a probe decides.
type Kind string

// The kinds, in the words that events use.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// Steps of a new container. A server that listens within its first milliseconds is found at once; later steps spare the
// processor that the server needs to get there. Commands cost a process each.
const (
	newFor       = 10 * time.Second
	stepFirst    = 2 * time.Millisecond
	stepMost     = 10 * time.Millisecond
	stepSlow     = 100 * time.Millisecond
	growAfter    = 50 * time.Millisecond
	maxAttempts  = 3
	periodOfStep = time.Second
)

// Runner probes one container.
type Runner struct {
	Kind  Kind
	Probe *v1.Probe
	// Check asks once; usually Check with a target.
	Check func(ctx context.Context) (Result, error)
	// StartedAt is when the container began to run.
	StartedAt time.Time
	// Ready is the result at the begin, true for a container that was ready before a restart of the agent.
	Ready bool
	// Report is called, never concurrently, when the result changes: for readiness each time, for startup and liveness once.
	Report func(ok bool, r Result)
	// Failed is called for each failure that counts, and with a warning; it becomes an event.
	Failed func(r Result, err error)
}

// Run probes until ctx ends or the kind has given its only answer.
func (r *Runner) Run(ctx context.Context) {
	delay := time.Duration(r.Probe.InitialDelaySeconds) * time.Second
	if !sleep(ctx, time.Until(r.StartedAt.Add(delay))) {
		return
	}
	began := time.Now()
	counter := counter{probe: r.Probe, kind: r.Kind, result: r.Ready || r.Kind == Liveness}
	period := time.Duration(max(r.Probe.PeriodSeconds, 1)) * time.Second
	next := began // when the next probe is due that counts as a failure
	for {
		counts := !time.Now().Before(next)
		result, err := r.check(ctx)
		if ctx.Err() != nil {
			return
		}
		if counts {
			next = next.Add(period)
			if late := time.Now(); next.Before(late) {
				next = late
			}
		}
		if r.answer(&counter, result, err, counts) {
			return
		}
		wait := time.Until(next)
		if step := r.step(time.Since(began), counter.passed); step > 0 {
			wait = min(wait, step)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// answer counts one result and reports whether the kind has given its only answer.
func (r *Runner) answer(c *counter, result Result, err error, counts bool) (done bool) {
	ok := err == nil && result.OK()
	if !ok && !counts {
		return false // a step between two periods can only bring good news
	}
	if !ok || result.Outcome == Warning {
		// The steps of a new container fail by nature until it listens; telling users would only frighten them.
		if c.passed || time.Since(r.StartedAt) >= periodOfStep {
			r.Failed(result, err)
		}
	}
	if err != nil {
		return false
	}
	changed := c.add(ok)
	if !changed {
		return false
	}
	r.Report(c.result, result)
	return r.Kind == Startup || r.Kind == Liveness
}

// check repeats a check that could not be carried out, as kubelet does.
func (r *Runner) check(ctx context.Context) (result Result, err error) {
	for range maxAttempts {
		result, err = r.Check(ctx)
		if err == nil || ctx.Err() != nil {
			return result, err
		}
	}
	return result, err
}

// step is the pause before an additional probe of a container that is new and has not passed yet, or zero for none. A probe with a
// longer period than a second gets steps that double, since its author asked for fewer.
func (r *Runner) step(age time.Duration, passed bool) time.Duration {
	if passed || r.Kind == Liveness || age > newFor {
		return 0
	}
	least := stepFirst
	if age > growAfter {
		least = stepMost
	}
	if r.Probe.Exec != nil {
		least = stepSlow
	}
	if r.Probe.PeriodSeconds > 1 {
		return max(least, age)
	}
	return least
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
