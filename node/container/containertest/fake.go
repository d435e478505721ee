package containertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/weft-dev/weft/node/container"
)

var _ container.Runtime = (*Fake)(nil)

// Method is a method of container.Runtime, as Calls reports it and FailNext takes it.
type Method string

// The methods of container.Runtime.
const (
	Start  Method = "Start"
	Status Method = "Status"
	Wait   Method = "Wait"
	Kill   Method = "Kill"
	Delete Method = "Delete"
	Exec   Method = "Exec"
	List   Method = "List"
)

// Call is one recorded call.
type Call struct {
	Method Method
	// ID of the container; empty for List.
	ID string
	// Spec as given to Start, zero for the other methods.
	Spec container.Spec
	// Signal as given to Kill.
	Signal int
	// Exec as given to Exec.
	Exec container.ExecOptions
}

// Fake is a container.Runtime without processes. It records calls, fails the next call of a method on request, and lets the test
// end containers. A container reacts to signals as a process without handlers does: SIGTERM, SIGINT and SIGKILL end it, others
// do nothing; IgnoreSignals changes that. It takes its times from package time, so that it works inside a synctest bubble.
// The zero value is ready, and all methods may be called concurrently.
type Fake struct {
	// mu guards everything below.
	mu         sync.Mutex
	calls      []Call
	changed    chan struct{}
	failures   map[Method][]error
	containers map[string]*fakeContainer
	exec       func(ctx context.Context, id string, opts container.ExecOptions) (int, error)
	ignored    map[int]bool
	lastPID    int
}

type fakeContainer struct {
	info container.Info
	// exited is closed when the container ends.
	exited chan struct{}
}

// FailNext makes the next call of method return err. Several errors for one method are returned in order.
func (f *Fake) FailNext(method Method, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failures == nil {
		f.failures = map[Method][]error{}
	}
	f.failures[method] = append(f.failures[method], err)
}

// OnExec makes fn answer the calls of Exec. Without it Exec returns 0 and writes nothing.
func (f *Fake) OnExec(fn func(ctx context.Context, id string, opts container.ExecOptions) (int, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exec = fn
}

// IgnoreSignals makes all containers survive these signals, as a process does that handles SIGTERM slowly. SIGKILL cannot be ignored.
func (f *Fake) IgnoreSignals(signals ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ignored = map[int]bool{}
	for _, s := range signals {
		f.ignored[s] = s != int(syscall.SIGKILL)
	}
}

// Calls returns what was called so far, in order. With methods it returns only the calls of these.
func (f *Fake) Calls(methods ...Method) []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.filter(methods)
}

// AwaitCalls blocks until at least n calls of method were made and returns them, or returns what there is when ctx ends. It does
// not poll, so that it works in and outside of a synctest bubble.
func (f *Fake) AwaitCalls(ctx context.Context, method Method, n int) []Call {
	for {
		f.mu.Lock()
		calls := f.filter([]Method{method})
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		if len(calls) >= n {
			return calls
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return calls
		}
	}
}

// Exit ends a running container with an exit code. It reports whether there was such a container and it was running.
func (f *Fake) Exit(id string, code int) bool {
	return f.End(id, container.Status{ExitCode: code})
}

// OOMKill ends a running container as the kernel does when its memory limit is reached.
func (f *Fake) OOMKill(id string) bool {
	return f.End(id, container.Status{ExitCode: 137, Signal: int(syscall.SIGKILL), OOMKilled: true})
}

// End ends a running container with any status; State, PID and the times are filled in when zero. It reports whether there was
// such a container and it was running.
func (f *Fake) End(id string, s container.Status) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end(id, s)
}

// Add puts a container there that no Start made, as a restarted node agent finds it. An empty state means running.
func (f *Fake) Add(info container.Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(info)
}

// Running returns the ids of the running containers, sorted.
func (f *Fake) Running() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for id, c := range f.containers {
		if c.info.Status.State == container.StateRunning {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Start implements container.Runtime.
func (f *Fake) Start(ctx context.Context, spec container.Spec) (container.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.record(ctx, Call{Method: Start, ID: spec.ID, Spec: spec}); err != nil {
		return container.Status{}, err
	}
	if _, ok := f.containers[spec.ID]; ok {
		return container.Status{}, fmt.Errorf("starting container %q: it exists", spec.ID)
	}
	c := f.add(container.Info{ID: spec.ID, Labels: spec.Labels, LogPath: spec.LogPath})
	return c.info.Status, nil
}

// Status implements container.Runtime.
func (f *Fake) Status(ctx context.Context, id string) (container.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.record(ctx, Call{Method: Status, ID: id}); err != nil {
		return container.Status{}, err
	}
	c, err := f.find(id)
	if err != nil {
		return container.Status{}, err
	}
	return c.info.Status, nil
}

// Wait implements container.Runtime.
func (f *Fake) Wait(ctx context.Context, id string) (container.Status, error) {
	f.mu.Lock()
	err := f.record(ctx, Call{Method: Wait, ID: id})
	var c *fakeContainer
	if err == nil {
		c, err = f.find(id)
	}
	f.mu.Unlock()
	if err != nil {
		return container.Status{}, err
	}
	select {
	case <-c.exited:
		f.mu.Lock()
		defer f.mu.Unlock()
		return c.info.Status, nil
	case <-ctx.Done():
		return container.Status{}, ctx.Err()
	}
}

// Kill implements container.Runtime.
func (f *Fake) Kill(ctx context.Context, id string, signal int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.record(ctx, Call{Method: Kill, ID: id, Signal: signal}); err != nil {
		return err
	}
	if _, err := f.find(id); err != nil {
		return err
	}
	f.signal(id, signal)
	return nil
}

// Delete implements container.Runtime.
func (f *Fake) Delete(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.record(ctx, Call{Method: Delete, ID: id}); err != nil {
		return err
	}
	if _, err := f.find(id); err != nil {
		return err
	}
	f.signal(id, int(syscall.SIGKILL))
	delete(f.containers, id)
	return nil
}

// Exec implements container.Runtime.
func (f *Fake) Exec(ctx context.Context, id string, opts container.ExecOptions) (int, error) {
	f.mu.Lock()
	err := f.record(ctx, Call{Method: Exec, ID: id, Exec: opts})
	if err == nil {
		err = f.running(id)
	}
	fn := f.exec
	f.mu.Unlock()
	if err != nil || fn == nil {
		return 0, err
	}
	return fn(ctx, id, opts)
}

// List implements container.Runtime.
func (f *Fake) List(ctx context.Context) ([]container.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.record(ctx, Call{Method: List}); err != nil {
		return nil, err
	}
	infos := make([]container.Info, 0, len(f.containers))
	for _, c := range f.containers {
		infos = append(infos, c.info)
	}
	slices.SortFunc(infos, func(a, b container.Info) int { return strings.Compare(a.ID, b.ID) })
	return infos, nil
}
