package pod

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/status"
)

// minGrace is how long a container always gets after its signal, as with kubelet: a hook may have used up the time.
const minGrace = 2 * time.Second

// defaultGrace applies to pods without a value.
const defaultGrace = 30 * time.Second

// stopUnit begins to stop a container that runs.
func (w *Worker) stopUnit(u *unit, why stopReason) {
	grace := w.grace()
	if why.grace != nil && !w.deleted() {
		grace = time.Duration(*why.grace) * time.Second
	}
	message := why.message
	if message == "" {
		message = "Stopping container " + u.spec.Name
	}
	u.op = opStopping
	w.containerEvent(u, v1.EventTypeNormal, "Killing", message)
	s := stopping{unit: u, id: u.Current.ID, grace: grace, signal: u.stopSignal}
	if hook := u.spec.Lifecycle; hook != nil && hook.PreStop != nil {
		s.hook = hook.PreStop
	}
	target := w.hookTarget(u, s.id)
	w.ops.Go(func() {
		w.endContainer(s, func(ctx context.Context) error { return runHook(ctx, s.hook, target) })
	})
}

// stopping is a container that is being stopped.
type stopping struct {
	unit   *unit
	id     string
	grace  time.Duration
	signal int
	hook   *v1.LifecycleHandler
}

// endContainer runs the preStop hook, asks the container to end, and kills it when its time is over. The end itself is reported by
// the goroutine that waits for the container.
func (w *Worker) endContainer(s stopping, hook func(context.Context) error) {
	deadline := time.Now().Add(s.grace)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	gone := make(chan struct{})
	w.ops.Go(func() {
		defer close(gone)
		_, _ = w.o.Runtime.Wait(ctx, s.id)
	})
	if s.hook != nil && s.grace > 0 {
		w.preStop(ctx, s, hook, deadline, gone)
	}
	if w.ctx.Err() != nil || closed(gone) {
		return
	}
	signal := s.signal
	if signal == 0 {
		signal = int(unix.SIGTERM)
	}
	left := time.Until(deadline)
	if s.grace > 0 {
		left = max(left, minGrace)
	}
	if left > 0 {
		w.kill(s, signal)
		if wait(w.ctx, gone, left) {
			return
		}
	}
	for w.ctx.Err() == nil && !closed(gone) {
		w.kill(s, int(unix.SIGKILL))
		if wait(w.ctx, gone, minGrace) {
			return
		}
	}
}

func (w *Worker) preStop(ctx context.Context, s stopping, hook func(context.Context) error, deadline time.Time, gone <-chan struct{}) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	done := make(chan error, 1)
	w.ops.Go(func() { done <- hook(ctx) })
	select {
	case <-gone:
	case <-ctx.Done():
		w.log.Info("A preStop hook did not end in time", "container", s.unit.name)
	case err := <-done:
		if err != nil && w.ctx.Err() == nil && !closed(gone) {
			w.log.Info("A preStop hook failed", "container", s.unit.name, "err", err)
			w.containerEvent(s.unit, v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
	}
}

func (w *Worker) kill(s stopping, signal int) {
	if err := w.o.Runtime.Kill(w.ctx, s.id, signal); err != nil && w.ctx.Err() == nil && !isGone(err) {
		w.log.Warn("Sending a signal to a container failed", "container", s.unit.name, "signal", signal, "err", err)
	}
}

// wait waits for the end of a container and reports whether nothing is left to do.
func wait(ctx context.Context, gone <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-gone:
		return true
	case <-ctx.Done():
		return true
	case <-t.C:
		return false
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// grace is how long the containers of the pod have to end.
func (w *Worker) grace() time.Duration {
	seconds := w.pod.Spec.TerminationGracePeriodSeconds
	if w.pod.DeletionGracePeriodSeconds != nil && w.pod.DeletionTimestamp != nil {
		seconds = w.pod.DeletionGracePeriodSeconds
	}
	if seconds == nil {
		return defaultGrace
	}
	// A pod that is deleted by force still gets a moment to end its connections.
	return max(time.Duration(*seconds)*time.Second, time.Second)
}

// stopAll begins to stop everything that runs: sidecars when the regular containers have ended, the last first.
func (w *Worker) stopAll() {
	others := false
	for _, u := range w.order {
		if u.role == roleSidecar || u.op == opStarting && !u.IsRunning() {
			others = others || u.op == opStarting
			continue
		}
		if !u.IsRunning() {
			continue
		}
		others = true
		if u.op == opNone {
			w.stopUnit(u, stopReason{})
		}
	}
	if others {
		return
	}
	for _, u := range slices.Backward(w.order) {

		if u.role != roleSidecar || !u.IsRunning() {
			continue
		}
		if u.op == opNone {
			w.stopUnit(u, stopReason{})
		}
		return // one after the other
	}
}

// forget clears reasons to wait that no longer hold once nothing will be started.
func (w *Worker) forget() {
	for _, u := range w.order {
		if u.Waiting != nil && (u.Current != nil || u.Waiting.Reason == status.CrashLoopBackOff) {
			u.Waiting = nil
		}
	}
}
