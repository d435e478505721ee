package activator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/activator"
	"github.com/weft-dev/weft/mesh/balance"
)

// log is an Observer that keeps what it was told.
type log struct {
	mu     sync.Mutex
	events []string
	parked int
}

func (l *log) add(event string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked += n
	if event != "" {
		l.events = append(l.events, event)
	}
}

func (l *log) Parked()   { l.add("", 1) }
func (l *log) Unparked() { l.add("", -1) }
func (l *log) Cold()     { l.add("cold", 0) }
func (l *log) Warm()     { l.add("warm", 0) }

func (l *log) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events = nil
	return events
}

func newGate(limit int64, capacity int) (*activator.Gate, *log) {
	l := new(log)
	g := activator.NewGate(balance.NewSet(balance.LeastRequest{}, nil), l)
	g.SetCapacity(capacity)
	g.SetLimit(limit)
	return g, l
}

func targets(names ...string) []balance.Target {
	var out []balance.Target
	for _, n := range names {
		out = append(out, balance.Target{Address: n})
	}
	return out
}

// enter does what the dispatch filter does.
func enter(ctx context.Context, g *activator.Gate) (*balance.Endpoint, error) {
	if e := g.TryEnter(); e != nil {
		return e, nil
	}
	t, err := g.Park(false)
	if err != nil {
		return nil, err
	}
	return t.Wait(ctx)
}

// visitors enter a gate one after the other and tell when they are in.
type visitors struct {
	t  *testing.T
	g  *activator.Gate
	mu sync.Mutex
	in []int
	at map[int]*balance.Endpoint
}

func (v *visitors) come(ctx context.Context, id int) {
	go func() {
		e, err := enter(ctx, v.g)
		v.mu.Lock()
		defer v.mu.Unlock()
		if err != nil {
			v.in = append(v.in, -id)
			return
		}
		v.in = append(v.in, id)
		v.at[id] = e
	}()
	synctest.Wait()
}

// arrived are those who have entered since the last call, sorted, because those who enter together run in any order; those who gave
// up are negative.
func (v *visitors) arrived() []int {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	in := v.in
	v.in = nil
	slices.Sort(in)
	return in
}

func (v *visitors) leave(id int) {
	v.mu.Lock()
	e := v.at[id]
	v.mu.Unlock()
	v.g.Leave(e)
}

func (v *visitors) want(step string, want ...int) {
	v.t.Helper()
	if diff := cmp.Diff(want, v.arrived()); diff != "" {
		v.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, l := newGate(2, 0)
		v := &visitors{t: t, g: g, at: make(map[int]*balance.Endpoint)}
		for id := 1; id <= 5; id++ {
			v.come(t.Context(), id)
		}
		v.want("no endpoint")
		if diff := cmp.Diff([]string{"cold"}, l.take()); diff != "" || l.parked != 5 || g.Waiting() != 5 {
			t.Errorf("parked %d, waiting %d (-want +got):\n%s", l.parked, g.Waiting(), diff)
		}
		g.Update(targets("a"))
		v.want("an endpoint with room for two lets two go", 1, 2)
		v.come(t.Context(), 6)
		v.want("a new request does not overtake")
		v.leave(2)
		v.want("one leaves, one goes", 3)
		g.SetLimit(3)
		v.want("a higher limit lets one more go", 4)
		g.SetLimit(0)
		v.want("no limit lets all go", 5, 6)
		v.come(t.Context(), 7)
		v.want("and new ones at once", 7)
		if diff := cmp.Diff([]string{"warm"}, l.take()); diff != "" || l.parked != 0 || g.Waiting() != 0 {
			t.Errorf("parked %d, waiting %d (-want +got):\n%s", l.parked, g.Waiting(), diff)
		}
	})
}

func TestLeavingTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, l := newGate(1, 2)
		v := &visitors{t: t, g: g, at: make(map[int]*balance.Endpoint)}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		v.come(ctx, 1)
		v.come(t.Context(), 2)
		if _, err := enter(t.Context(), g); !errors.Is(err, activator.ErrQueueFull) {
			t.Errorf("beyond the capacity: %v", err)
		}
		cancel(gone)
		v.want("the first gave up", -1)
		v.come(t.Context(), 3)
		g.Update(targets("a"))
		v.want("the next has moved up", 2)
		v.leave(2)
		v.want("and the last", 3)
		if l.parked != 0 {
			t.Errorf("%d parked", l.parked)
		}
	})
}

// TestAsksAgain checks that a request asks for an instance although one before it did and left.
func TestAsksAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, l := newGate(1, 0)
		v := &visitors{t: t, g: g, at: make(map[int]*balance.Endpoint)}
		for id := 1; id <= 2; id++ {
			ctx, cancel := context.WithCancel(t.Context())
			v.come(ctx, id)
			if diff := cmp.Diff([]string{"cold"}, l.take()); diff != "" {
				t.Errorf("request %d (-want +got):\n%s", id, diff)
			}
			cancel()
			v.want("gone", -id)
		}
		g.Update(targets("a"))
		l.take()
		v.come(t.Context(), 3)
		v.come(t.Context(), 4)
		v.want("one in, one waits for room", 3)
		if events := l.take(); events != nil {
			t.Errorf("waiting for room asks for no instance, got %v", events)
		}
		g.Update(nil)
		if diff := cmp.Diff([]string{"cold"}, l.take()); diff != "" {
			t.Errorf("the instance went away (-want +got):\n%s", diff)
		}
		g.Update(targets("b"))
		v.want("another", 4)
	})
}

func TestRefusedGoesToTheFront(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(1, 1)
		g.Update(targets("a"))
		e, err := enter(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		v := &visitors{t: t, g: g, at: make(map[int]*balance.Endpoint)}
		v.come(t.Context(), 2)
		g.Refused(e)
		ticket, err := g.Park(true)
		if err != nil {
			t.Fatalf("the queue is full, but not for one that had its turn: %v", err)
		}
		got, err := ticket.Wait(t.Context()) // the ejection ends after a moment
		if got != e || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		v.want("the other still waits")
		g.Leave(got)
		v.want("and comes after", 2)
	})
}

func TestWithoutActivation(t *testing.T) {
	t.Parallel()
	g, _ := newGate(0, -1)
	if _, err := enter(t.Context(), g); !errors.Is(err, activator.ErrNoEndpoint) {
		t.Errorf("got %v", err)
	}
}

func TestCancelAfterGrant(t *testing.T) {
	t.Parallel()
	g, l := newGate(1, 0)
	ticket, err := g.Park(false)
	if err != nil {
		t.Fatal(err)
	}
	g.Update(targets("a"))
	ticket.Cancel()
	if e := g.TryEnter(); e == nil {
		t.Error("the place was not given back")
	}
	if l.parked != 0 {
		t.Errorf("%d parked", l.parked)
	}
}

// TestNothingIsLost has everything happen at once: at the end nobody waits and no place is taken.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	g, l := newGate(2, 0)
	var wg, changes sync.WaitGroup
	var served, left atomic.Int64
	stop := make(chan struct{})
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			g.Update(targets("a", fmt.Sprint(i%3)))
			g.SetLimit(int64(i%3 + 1))
		}
	})
	for i := range 32 {
		wg.Go(func() {
			for j := range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%5 == 0 {
					go cancel()
				}
				if e, err := enter(ctx, g); err == nil {
					served.Add(1)
					g.Leave(e)
				} else {
					left.Add(1)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	close(stop)
	changes.Wait()
	if served.Load()+left.Load() != 32*300 || g.Waiting() != 0 || l.parked != 0 {
		t.Errorf("served %d, left %d, waiting %d, parked %d", served.Load(), left.Load(), g.Waiting(), l.parked)
	}
	g.SetLimit(1)
	g.Update(targets("new"))
	if e := g.TryEnter(); e == nil || e.InFlight() != 1 {
		t.Errorf("a place is still taken: %v", e)
	}
}

func TestAdmissionDoesNotAllocate(t *testing.T) {
	g, _ := newGate(10, 0)
	g.Update(targets("a", "b", "c"))
	if n := testing.AllocsPerRun(1000, func() { g.Leave(g.TryEnter()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmission(b *testing.B) {
	g, _ := newGate(0, 0)
	g.Update(targets("a", "b", "c"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.Leave(g.TryEnter())
		}
	})
}

// BenchmarkParked is the cost of a request that waits for its turn.
func BenchmarkParked(b *testing.B) {
	g, _ := newGate(1, 0)
	g.Update(targets("a"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e, err := enter(context.Background(), g)
			if err != nil {
				b.Error(err)
				return
			}
			g.Leave(e)
		}
	})
}
