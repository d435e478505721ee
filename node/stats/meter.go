package stats

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// settle is how long the first who asks waits: a rate needs two moments.
	settle = time.Second
	// refresh is how old the newest measurement may be; several questions at once are answered by one.
	refresh = 2 * time.Second
	// longest bounds the window between two measurements. What was measured before says nothing about now.
	longest = time.Minute
	// youngest is how long a container must have run for its rate to mean something.
	youngest = 500 * time.Millisecond
)

// Target is a container to measure.
type Target struct {
	// ID identifies the container, and no later attempt.
	ID string
	// Cgroup is its path below the Reader's parent.
	Cgroup    string
	StartedAt time.Time
}

// Rate is what something uses at one moment, and how much processor it used over a window that ends then.
type Rate struct {
	Usage
	Window time.Duration
	// Cores is the mean number of processors in use over Window.
	Cores float64
}

// Report is the outcome of one measurement.
type Report struct {
	Machine Rate
	// Containers by ID. Those are missing that are too young for a rate.
	Containers map[string]Rate
}

// Counters reads the kernel's counters; a Reader does.
type Counters interface {
	// Container reads what a container has used; the error is ErrGone when there is none.
	Container(cgroup string) (Usage, error)
	// Machine reads what all of the machine has used.
	Machine() (Usage, error)
	// Networks reads the interfaces that a process sees, without loopback.
	Networks(pid int) ([]Network, error)
}

var _ Counters = Reader{}

// Meter measures when it is asked. It may be used concurrently.
type Meter struct {
	counters Counters
	targets  func() []Target

	// mu guards the last two measurements. It is held while the first who asks waits for the second of them.
	mu             sync.Mutex
	previous, last *measurement
}

type measurement struct {
	machine    Usage
	containers map[string]Usage
	started    map[string]time.Time
}

// NewMeter returns a Meter of the containers that targets lists.
func NewMeter(counters Counters, targets func() []Target) *Meter {
	return &Meter{counters: counters, targets: targets}
}

// Measure reports rates over the time since the last measurement. When there was none within a minute, it takes a second.
func (m *Meter) Measure(ctx context.Context) (Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || time.Since(m.last.machine.At) > longest {
		m.last = nil
		if err := m.take(); err != nil {
			return Report{}, err
		}
	}
	if m.previous == nil {
		if err := wait(ctx, settle-time.Since(m.last.machine.At)); err != nil {
			return Report{}, err
		}
	}
	if m.previous == nil || time.Since(m.last.machine.At) >= refresh {
		if err := m.take(); err != nil {
			return Report{}, err
		}
	}
	return m.report(), nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// take measures once.
func (m *Meter) take() error {
	machine, err := m.counters.Machine()
	if err != nil {
		return err
	}
	targets := m.targets()
	next := &measurement{
		machine: machine, containers: make(map[string]Usage, len(targets)), started: make(map[string]time.Time, len(targets)),
	}
	for _, t := range targets {
		u, err := m.counters.Container(t.Cgroup)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		next.containers[t.ID], next.started[t.ID] = u, t.StartedAt
	}
	m.previous, m.last = m.last, next
	return nil
}

// report compares the last two measurements. A container that is new in the last is measured since its start.
func (m *Meter) report() Report {
	out := Report{Machine: rate(m.previous.machine, m.last.machine), Containers: make(map[string]Rate, len(m.last.containers))}
	for id, u := range m.last.containers {
		before, ok := m.previous.containers[id]
		if !ok {
			before = Usage{At: m.last.started[id]}
		}
		if before.At.IsZero() || u.At.Sub(before.At) < youngest {
			continue
		}
		out.Containers[id] = rate(before, u)
	}
	return out
}

func rate(before, after Usage) Rate {
	window := after.At.Sub(before.At)
	return Rate{Usage: after, Window: window, Cores: max(0, (after.CPU-before.CPU).Seconds()/window.Seconds())}
}
