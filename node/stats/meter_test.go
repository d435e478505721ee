package stats

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kernel plays counters that grow with the time of the test: each container uses half a processor, the machine one.
type kernel struct {
	began time.Time
	gone  map[string]bool
	reads int
	err   error
	// networks are those of each process.
	networks []Network
}

func (k *kernel) Networks(int) ([]Network, error) { return k.networks, nil }

func (k *kernel) usage(cores float64) Usage {
	now := time.Now()
	return Usage{At: now, CPU: time.Duration(cores * float64(now.Sub(k.began))), WorkingSet: 42}
}

func (k *kernel) Container(cgroup string) (Usage, error) {
	if k.gone[cgroup] {
		return Usage{}, ErrGone
	}
	return k.usage(0.5), nil
}

func (k *kernel) Machine() (Usage, error) { k.reads++; return k.usage(1), k.err }

// pass lets time of the test's bubble go by.
func pass(d time.Duration) { <-time.After(d) }

func TestMeasure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{began: time.Now(), gone: map[string]bool{"gone": true}}
		targets := []Target{{ID: "a", Cgroup: "a", StartedAt: k.began}, {ID: "gone", Cgroup: "gone", StartedAt: k.began}}
		m := NewMeter(k, func() []Target { return targets })
		pass(time.Hour)

		type measured struct {
			Waited, Machine time.Duration
			MachineCores    float64
			Containers      map[string]time.Duration
		}
		measure := func() measured {
			began := time.Now()
			got, err := m.Measure(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out := measured{
				Waited: time.Since(began), Machine: got.Machine.Window, MachineCores: got.Machine.Cores, Containers: map[string]time.Duration{},
			}
			for id, c := range got.Containers {
				if out.Containers[id] = c.Window; c.Cores < 0.4 || c.Cores > 0.6 || c.WorkingSet != 42 {
					t.Errorf("container %s: %+v", id, c)
				}
			}
			return out
		}
		second := time.Second
		for _, step := range []struct {
			name string
			// after is the time since the step before; start begins a container first.
			after time.Duration
			start string
			want  measured
		}{
			{"the first who asks waits", 0, "", measured{second, second, 1, map[string]time.Duration{"a": second}}},
			{"soon after, the answer is the same", second, "", measured{0, second, 1, map[string]time.Duration{"a": second}}},
			{"later, the window is the time between", 4 * second, "", measured{0, 5 * second, 1, map[string]time.Duration{"a": 5 * second}}},
			{"a container just started has no rate", 3 * second, "b", measured{0, 3 * second, 1, map[string]time.Duration{"a": 3 * second}}},
			{
				"after that it has", 3 * second, "", measured{0, 3 * second, 1, map[string]time.Duration{"a": 3 * second, "b": 3 * second}},
			},
			{
				"after a long silence, one waits again", time.Hour, "",
				measured{second, second, 1, map[string]time.Duration{"a": second, "b": second}},
			},
		} {
			pass(step.after)
			if step.start != "" {
				targets = append(targets, Target{ID: step.start, Cgroup: step.start, StartedAt: time.Now()})
			}
			if diff := cmp.Diff(step.want, measure()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.name, diff)
			}
		}
	})
}

// TestRateSinceTheStart is about a container that started between two measurements.
func TestRateSinceTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{began: time.Now()}
		var targets []Target
		m := NewMeter(k, func() []Target { return targets })
		if _, err := m.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(6 * time.Second)
		k.began = time.Now()
		targets = []Target{{ID: "a", Cgroup: "a", StartedAt: time.Now()}}
		pass(4 * time.Second)
		got, err := m.Measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if a := got.Containers["a"]; a.Window != 4*time.Second || a.Cores != 0.5 {
			t.Errorf("window %v, cores %v; want 4s, 0.5", a.Window, a.Cores)
		}
	})
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{began: time.Now()}
		m := NewMeter(k, func() []Target { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := m.Measure(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		// The next one waits only for the rest.
		began := time.Now()
		if got, err := m.Measure(t.Context()); err != nil || got.Machine.Window != time.Second || time.Since(began) != 700*time.Millisecond {
			t.Errorf("after %v: %+v, %v", time.Since(began), got.Machine, err)
		}
		if k.reads != 2 {
			t.Errorf("%d measurements, want 2", k.reads)
		}
	})
}

func TestMeasureReportsErrors(t *testing.T) {
	t.Parallel()
	want := errors.New("no /proc")
	if _, err := NewMeter(&kernel{err: want}, nil).Measure(t.Context()); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
