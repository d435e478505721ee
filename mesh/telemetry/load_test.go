package telemetry

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newLoad() *Load {
	l := &Load{clock: NewClock(), wake: func() {}}
	l.cold = &coldTracker{all: &ColdStarts{}, done: func(ColdStart) {}}
	l.Name.Store(&RevisionName{Namespace: "ns", Revision: "rev"})
	l.rebase(time.Now())
	return l
}

// TestAverageConcurrency compares with the area under the curve, worked out by hand.
func TestAverageConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLoad()
		time.Sleep(time.Hour) //nolint:forbidigo // the clock of synctest: the load must not depend on the age of the process
		l.rebase(time.Now())
		zero := time.Now()
		at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
		l.Start(at(0))
		l.Start(at(250))
		l.End(at(500))
		l.Start(at(900))
		got := l.take(at(1000))
		want := (250*1 + 250*2 + 400*1 + 100*2) / 1000.0
		if math.Abs(got.AverageConcurrency-want) > 1e-6 || got.Requests != 3 || got.InFlight != 2 || got.IntervalMs != 1000 {
			t.Errorf("got %v, want average %v", got, want)
		}
		l.End(at(1500))
		l.End(at(1500))
		got = l.take(at(2000))
		if math.Abs(got.AverageConcurrency-1) > 1e-6 || got.Requests != 0 || got.InFlight != 0 {
			t.Errorf("second interval: %v", got)
		}
		if got = l.take(at(3000)); got == nil || got.AverageConcurrency != 0 || got.Requests != 0 {
			t.Errorf("the end of the load must be told once: %v", got)
		}
		if got = l.take(at(4000)); got != nil {
			t.Errorf("and not again: %v", got)
		}
	})
}

func TestLoadIsConsistentUnderContention(t *testing.T) {
	t.Parallel()
	l := newLoad()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10_000 {
				l.Start(time.Now())
				l.End(time.Now())
			}
		})
	}
	stop := make(chan struct{})
	begun := time.Now()
	busy := 0.0
	var reader sync.WaitGroup
	reader.Go(func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			if got := l.take(time.Now()); got != nil {
				busy += got.GetAverageConcurrency() * float64(got.GetIntervalMs())
			}
		}
	})
	wg.Wait()
	close(stop)
	reader.Wait()
	if most := 8 * float64(time.Since(begun).Milliseconds()+1); busy < 0 || busy > most {
		t.Errorf("%.0f ms of requests, more than the %.0f ms that eight clients can make", busy, most)
	}
	if l.Present() != 0 {
		t.Errorf("%d present", l.Present())
	}
}

func TestColdStarts(t *testing.T) {
	t.Parallel()
	all := &ColdStarts{}
	c := &coldTracker{backend: "b", all: all, done: func(ColdStart) {}}
	now := time.Unix(100, 0)
	for i := range 300 {
		c.answered(now) // no cold start in progress
		c.parked(now)
		c.wakeSent(now.Add(1))
		c.answered(now) // a refusal before there is an endpoint
		c.endpoint(now.Add(2))
		c.answered(now.Add(time.Duration(3 + i)))
	}
	last := all.Last()
	first := ColdStart{"b", now.UnixNano(), now.UnixNano() + 1, now.UnixNano() + 2, now.UnixNano() + 3 + 44}
	if len(last) != 256 || last[0] != first {
		t.Errorf("%d, first %+v, want %+v", len(last), last[0], first)
	}
}

func TestMeasuringDoesNotAllocate(t *testing.T) {
	b := &Backend{Load: newLoad()}
	b.Load.cold.open.Store(false)
	if n := testing.AllocsPerRun(1000, func() {
		now := time.Now()
		b.Load.Start(now)
		b.Load.Answered(now)
		b.Load.End(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLoad(b *testing.B) {
	l := newLoad()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Start(time.Now())
			l.End(time.Now())
		}
	})
}
