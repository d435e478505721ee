package activator

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/weft-dev/weft/mesh/balance"
)

// DefaultCapacity is the greatest number of parked requests per backend when its configuration gives none.
const DefaultCapacity = 10_000

// ErrQueueFull is returned when a request may not park because the queue is full.
var ErrQueueFull = errors.New("pending request queue full")

// ErrNoEndpoint is returned when no endpoint has room and the backend cannot be activated.
var ErrNoEndpoint = errors.New("no endpoint")

// Observer is told what happens at a gate. Its methods must not block and must not call the gate; they may run concurrently.
type Observer interface {
	// Parked is called when a request begins to wait.
	Parked()
	// Unparked is called when a request no longer waits.
	Unparked()
	// Cold is called once when requests wait and there is no endpoint at all, so that an instance must be started for them.
	Cold()
	// Warm is called when the first endpoint comes after Cold.
	Warm()
}

// Gate admits requests to the endpoints of one backend. Its methods may be called concurrently. A request that finds room takes no
// lock.
type Gate struct {
	set      *balance.Set
	observer Observer
	// capacity is the bound of the queue; negative means that requests do not park at all.
	capacity atomic.Int64
	// waiting is the length of the queue. It is written under mu and read without: see Park for why that suffices.
	waiting atomic.Int64

	// mu guards queue and cold.
	mu    sync.Mutex
	queue queue
	// cold is set while requests wait and there is no endpoint.
	cold bool
}

// NewGate returns a gate before set. Requests do not park until SetCapacity allows it.
func NewGate(set *balance.Set, observer Observer) *Gate {
	g := &Gate{set: set, observer: observer}
	g.capacity.Store(-1)
	return g
}

// SetCapacity bounds the queue. Zero means DefaultCapacity; negative means that requests fail at once when there is no room.
func (g *Gate) SetCapacity(n int) {
	if n == 0 {
		n = DefaultCapacity
	}
	g.capacity.Store(int64(n))
}

// Waiting is the number of parked requests.
func (g *Gate) Waiting() int { return int(g.waiting.Load()) }

// Usable is the number of endpoints that take new requests.
func (g *Gate) Usable() int { return g.set.Usable() }

// TryEnter takes a place at an endpoint if one has room and nobody waits; otherwise it returns nil.
func (g *Gate) TryEnter() *balance.Endpoint {
	if g.waiting.Load() != 0 {
		return nil // whoever waits was here first
	}
	return g.set.Acquire()
}

// Park puts a request that found no room into the queue; the caller must Wait or Cancel. The error is ErrNoEndpoint or ErrQueueFull.
// Again is set for a request that had a place and found that nobody listened there: it goes to the front, whatever the
// queue's length.
func (g *Gate) Park(again bool) (*Ticket, error) {
	capacity := g.capacity.Load()
	if capacity < 0 {
		return nil, ErrNoEndpoint
	}
	t := &Ticket{gate: g, granted: make(chan *balance.Endpoint, 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !again && int64(g.queue.length) >= capacity {
		return nil, ErrQueueFull
	}
	if again {
		g.queue.pushFront(t)
	} else {
		g.queue.pushBack(t)
	}
	// The order matters: first be counted as waiting, then look for room. Leave gives room first and then looks for waiters, so
	// that of a Leave and a Park at the same time at least one sees the other.
	g.waiting.Add(1)
	g.observer.Parked()
	g.dispatch()
	return t, nil
}

// Wait returns the endpoint at which a place has been taken for the request, or the cause of ctx's end.
func (t *Ticket) Wait(ctx context.Context) (*balance.Endpoint, error) {
	select {
	case e := <-t.granted:
		return e, nil
	case <-ctx.Done():
		t.Cancel()
		return nil, context.Cause(ctx)
	}
}

// Cancel takes the request out of the queue, or gives back the place that it has been granted meanwhile.
func (t *Ticket) Cancel() {
	g := t.gate
	g.mu.Lock()
	queued := g.queue.remove(t)
	if queued {
		g.waiting.Add(-1)
		g.cold = g.cold && g.queue.length > 0 // the next request must ask for an instance anew
		g.observer.Unparked()
	}
	g.mu.Unlock()
	if !queued {
		g.Leave(<-t.granted) // the grant and the end of ctx crossed
	}
}

// Leave gives back the place at an endpoint, to the request that has waited longest if there is one.
func (g *Gate) Leave(e *balance.Endpoint) {
	g.set.Release(e)
	if g.waiting.Load() == 0 {
		return
	}
	g.Dispatch()
}

// Refused gives back a place at an endpoint that refused the connection. The endpoint is left alone for a moment.
func (g *Gate) Refused(e *balance.Endpoint) {
	g.set.Eject(e, g.Dispatch)
	g.Leave(e)
}

// SetLimit changes the concurrency limit per endpoint and lets requests go that have room now.
func (g *Gate) SetLimit(limit int64) {
	g.set.SetLimit(limit)
	g.Dispatch()
}

// Update replaces the endpoints and lets requests go that have room now.
func (g *Gate) Update(targets []balance.Target) {
	g.set.Update(targets)
	g.Dispatch()
}

// Dispatch lets as many requests go as there is room for, in the order in which they came.
func (g *Gate) Dispatch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dispatch()
}

// dispatch is Dispatch with mu held.
func (g *Gate) dispatch() {
	if g.cold && g.set.Usable() > 0 {
		g.cold = false
		g.observer.Warm()
	}
	for g.queue.head != nil {
		e := g.set.Acquire()
		if e == nil {
			break
		}
		t := g.queue.head
		g.queue.remove(t)
		g.waiting.Add(-1)
		g.observer.Unparked()
		t.granted <- e
	}
	if g.queue.head != nil && !g.cold && g.set.Usable() == 0 {
		g.cold = true
		g.observer.Cold()
	}
}
