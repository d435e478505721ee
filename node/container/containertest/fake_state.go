package containertest

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/weft-dev/weft/node/container"
)

// The methods of this file want f.mu held.

func (f *Fake) filter(methods []Method) []Call {
	var calls []Call
	for _, c := range f.calls {
		if len(methods) == 0 || slices.Contains(methods, c.Method) {
			calls = append(calls, c)
		}
	}
	return calls
}

// record notes the call, wakes AwaitCalls, and returns the error that the call has to return at once, if any.
func (f *Fake) record(ctx context.Context, c Call) error {
	f.calls = append(f.calls, c)
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	if errs := f.failures[c.Method]; len(errs) > 0 {
		f.failures[c.Method] = errs[1:]
		return errs[0]
	}
	return ctx.Err()
}

func (f *Fake) find(id string) (*fakeContainer, error) {
	c, ok := f.containers[id]
	if !ok {
		return nil, fmt.Errorf("container %q: %w", id, container.ErrNotFound)
	}
	return c, nil
}

// running returns an error unless the container exists and runs.
func (f *Fake) running(id string) error {
	c, err := f.find(id)
	if err == nil && c.info.Status.State != container.StateRunning {
		err = fmt.Errorf("container %q is %s", id, c.info.Status.State)
	}
	return err
}

func (f *Fake) add(info container.Info) *fakeContainer {
	if f.containers == nil {
		f.containers = map[string]*fakeContainer{}
	}
	if info.Status.State == "" {
		f.lastPID++
		info.Status.State, info.Status.PID, info.Status.StartedAt = container.StateRunning, f.lastPID, time.Now()
	}
	c := &fakeContainer{info: info, exited: make(chan struct{})}
	if info.Status.State != container.StateRunning {
		close(c.exited)
	}
	f.containers[info.ID] = c
	return c
}

// signal does what the kernel does with a signal that the process has no handler for.
func (f *Fake) signal(id string, signal int) {
	if f.ignored[signal] {
		return
	}
	switch syscall.Signal(signal) {
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT:
		f.end(id, container.Status{ExitCode: 128 + signal, Signal: signal})
	default:
	}
}

func (f *Fake) end(id string, s container.Status) bool {
	c, ok := f.containers[id]
	if !ok || c.info.Status.State != container.StateRunning {
		return false
	}
	if s.State == "" {
		s.State = container.StateStopped
	}
	if s.PID == 0 {
		s.PID = c.info.Status.PID
	}
	if s.StartedAt.IsZero() {
		s.StartedAt = c.info.Status.StartedAt
	}
	if s.FinishedAt.IsZero() {
		s.FinishedAt = time.Now()
	}
	c.info.Status = s
	close(c.exited)
	return true
}
