package balance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-dev/weft/mesh/balance"
)

// upstream counts how often it was closed.
type upstream struct{ closed atomic.Int32 }

func (u *upstream) Close() error {
	u.closed.Add(1)
	return nil
}

func newSet() *balance.Set {
	return balance.NewSet(balance.LeastRequest{}, func(string) io.Closer { return new(upstream) })
}

func targets(n int) []balance.Target {
	out := make([]balance.Target, n)
	for i := range out {
		out[i] = balance.Target{Address: fmt.Sprintf("10.0.0.%d:80", i), IP: fmt.Sprintf("10.0.0.%d", i), Pod: fmt.Sprintf("ns/pod-%d", i)}
	}
	return out
}

func TestLimitIsExact(t *testing.T) {
	t.Parallel()
	for _, endpoints := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(endpoints), func(t *testing.T) {
			t.Parallel()
			s := newSet()
			s.SetLimit(3)
			s.Update(targets(endpoints))
			var taken []*balance.Endpoint
			for e := s.Acquire(); e != nil; e = s.Acquire() {
				taken = append(taken, e)
			}
			if len(taken) != 3*endpoints {
				t.Fatalf("%d places, want %d", len(taken), 3*endpoints)
			}
			s.Release(taken[0])
			if e := s.Acquire(); e != taken[0] {
				t.Errorf("got %v, want the endpoint with room", e)
			}
			if e := s.Acquire(); e != nil {
				t.Errorf("a place too many at %s", e.Address)
			}
		})
	}
}

func TestLimitHoldsUnderContention(t *testing.T) {
	t.Parallel()
	s := newSet()
	s.SetLimit(2)
	s.Update(targets(3))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				if e := s.Acquire(); e != nil {
					if n := e.InFlight(); n > 2 {
						t.Errorf("%d in flight", n)
					}
					s.Release(e)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range s.Endpoints() {
		if e.InFlight() != 0 {
			t.Errorf("%s has %d in flight at the end", e.Address, e.InFlight())
		}
	}
}

func TestLeastRequestIsEven(t *testing.T) {
	t.Parallel()
	s := newSet()
	s.Update(targets(10))
	for range 1000 {
		s.Acquire()
	}
	for _, e := range s.Endpoints() {
		if n := e.InFlight(); n < 95 || n > 105 {
			t.Errorf("%s has %d of 1000 requests, want about 100", e.Address, n)
		}
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSet()
		s.Update(targets(2))
		a := s.Endpoints()[0]
		for a.InFlight() == 0 {
			s.Acquire()
		}
		a.Drain()
		if s.Usable() != 1 {
			t.Errorf("%d usable", s.Usable())
		}
		before := a.InFlight()
		for range 20 {
			if s.Acquire() == a {
				t.Fatal("a draining endpoint got a request")
			}
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.WaitIdle(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with %d in flight: %v", before, err)
		}
		var waits [3]chan error
		for i := range waits {
			waits[i] = make(chan error, 1)
			go func() { waits[i] <- a.WaitIdle(t.Context()) }()
		}
		synctest.Wait()
		for range before {
			s.Release(a)
		}
		for _, w := range waits {
			if err := <-w; err != nil {
				t.Error(err)
			}
		}
		if err := a.WaitIdle(t.Context()); err != nil {
			t.Errorf("idle already: %v", err)
		}
	})
}

func TestDrainDoesNotWaitForUpgradedConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSet()
		s.Update([]balance.Target{{Address: "10.0.0.1:1", IP: "10.0.0.1"}})
		socket, request, late := s.Acquire(), s.Acquire(), s.Acquire()
		socket.Upgraded()
		socket.Drain()
		done := make(chan error, 1)
		go func() { done <- socket.WaitIdle(t.Context()) }()
		synctest.Wait()
		s.Release(request)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("the drain ended, %v, while a request was in flight", err)
		default:
		}
		late.Upgraded() // the last request becomes a connection, too
		if err := <-done; err != nil {
			t.Error(err)
		}
		for range 2 {
			socket.UpgradeEnded()
			s.Release(socket)
		}
		if n := socket.InFlight(); n != 0 {
			t.Errorf("%d in flight at the end", n)
		}
	})
}

// TestDrainIsExact checks that nothing is in flight once WaitIdle has returned, with requests coming all the time.
func TestDrainIsExact(t *testing.T) {
	t.Parallel()
	s := newSet()
	for i := range 200 {
		s.Update([]balance.Target{{Address: fmt.Sprintf("10.0.0.1:%d", i+1), IP: "10.0.0.1"}})
		e := s.Endpoints()[0]
		var drained atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for got := s.Acquire(); got != nil; got = s.Acquire() {
					if drained.Load() {
						t.Error("a request came after the drain")
					}
					s.Release(got)
				}
			})
		}
		e.Drain()
		if err := e.WaitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
		drained.Store(true)
		wg.Wait()
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	s := newSet()
	s.Update(targets(2))
	a, b := s.Endpoints()[0], s.Endpoints()[1]
	ua := a.Upstream.(*upstream)
	for a.InFlight() == 0 {
		s.Acquire()
	}
	held := a.InFlight()

	s.Update(targets(2))
	if s.Endpoints()[0] != a || s.Endpoints()[1] != b {
		t.Error("endpoints that stay were made anew")
	}
	s.Update(targets(2)[1:])
	if !a.Draining() || ua.closed.Load() != 0 {
		t.Error("an endpoint that left with requests in flight must drain and keep its connections")
	}
	s.Update(targets(2))
	if s.Endpoints()[0] != a || a.Draining() {
		t.Error("an endpoint that comes back before its requests ended must keep its count")
	}
	s.Update(nil)
	for range held {
		s.Release(a)
	}
	if ua.closed.Load() == 0 {
		t.Error("connections of an endpoint that has left stay open")
	}
	s.Update(targets(2))
	if s.Endpoints()[0] == a {
		t.Error("an endpoint that was gone for good came back with its old state")
	}
	b = s.Endpoints()[1]
	b.Drain()
	s.Update(targets(2))
	if !b.Draining() {
		t.Error("an update that knows nothing of the drain undid it")
	}
	if !b.Restore() || b.Draining() || b.Restore() {
		t.Error("a drain that the configuration has not confirmed can be taken back, once")
	}
	leaving := targets(2)
	leaving[1].Draining = true
	s.Update(leaving)
	if b.Restore() || !b.Draining() {
		t.Error("a drain of the configuration was taken back")
	}
	same := targets(1)[0]
	s.Update([]balance.Target{same, same})
	if len(s.Endpoints()) != 1 {
		t.Error("the same endpoint twice")
	}
	same.Draining = true
	s.Update([]balance.Target{same})
	if s.Usable() != 0 || s.Acquire() != nil {
		t.Error("an endpoint that the configuration drains is used")
	}
}

func TestEject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSet()
		s.Update(targets(1))
		e := s.Endpoints()[0]
		var pauses []time.Duration
		for range 10 {
			begun := time.Now()
			back := make(chan struct{})
			s.Eject(e, func() { close(back) })
			if !e.Ejected() || s.Acquire() != nil || s.Usable() != 1 {
				t.Error("an ejected endpoint is not used but counts as there")
			}
			<-back
			pauses = append(pauses, time.Since(begun))
		}
		if pauses[0] != 5*time.Millisecond || pauses[1] != 10*time.Millisecond || pauses[9] != time.Second {
			t.Errorf("pauses %v", pauses)
		}
		got := s.Acquire()
		if got != e {
			t.Fatal("not back")
		}
		e.Succeeded()
		if e.Refusals() != 0 {
			t.Error("a success is not noted")
		}
	})
}

func TestAcquireDoesNotAllocate(t *testing.T) {
	s := newSet()
	s.SetLimit(10)
	s.Update(targets(10))
	if n := testing.AllocsPerRun(1000, func() { s.Release(s.Acquire()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAcquire(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newSet()
			s.Update(targets(n))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.Release(s.Acquire())
				}
			})
		})
	}
}
