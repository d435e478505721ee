package balance

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// The state of an endpoint is one word, so that taking a place and checking for drain are one atomic step: whoever marks an
// endpoint draining knows that the count it reads from then on only falls.
const (
	drainingBit = int64(1) << 62
	ejectedBit  = int64(1) << 61
	countMask   = ejectedBit - 1
)

// Ejection after a refused connection starts short, because an instance that has just become ready may be a few milliseconds
// from listening, and doubles up to a bound.
const (
	firstEjection = 5 * time.Millisecond
	maxEjection   = time.Second
)

// Endpoint is one instance of a backend. Its methods may be called concurrently.
type Endpoint struct {
	// Address is "ip:port".
	Address string
	// IP is the address without the port, the key by which a pod is drained.
	IP string
	// Pod is "<namespace>/<name>", or empty.
	Pod string
	// Upstream holds the connections to this endpoint. The balancer only closes it, after the endpoint has left its set and its
	// last request has ended. Close must leave it usable, since an endpoint may come back.
	Upstream io.Closer

	state atomic.Int64
	// upgraded counts those of the places in state that are upgraded connections.
	upgraded atomic.Int64
	// refusals counts refused connections since the last success.
	refusals atomic.Int32
	left     atomic.Bool
	// told is set while the configuration itself says that the endpoint is draining.
	told atomic.Bool

	// mu guards idle.
	mu sync.Mutex
	// idle is closed when nothing is in flight on a draining or left endpoint; nil while nobody waits.
	idle chan struct{}
}

// InFlight is the number of requests at the endpoint now.
func (e *Endpoint) InFlight() int64 { return e.state.Load() & countMask }

// Draining reports whether the endpoint gets no new request.
func (e *Endpoint) Draining() bool { return e.state.Load()&drainingBit != 0 }

// Ejected reports whether the endpoint is left alone for a moment because it refused a connection.
func (e *Endpoint) Ejected() bool { return e.state.Load()&ejectedBit != 0 }

// tryAcquire takes a place at the endpoint; limit zero means no limit.
func (e *Endpoint) tryAcquire(limit int64) bool {
	for {
		state := e.state.Load()
		if state&(drainingBit|ejectedBit) != 0 || (limit > 0 && state >= limit) {
			return false
		}
		if e.state.CompareAndSwap(state, state+1) {
			return true
		}
	}
}

// release gives the place back.
func (e *Endpoint) release() {
	state := e.state.Add(-1)
	if state&drainingBit != 0 && e.requests() <= 0 {
		e.signalIdle()
	}
	if state&countMask == 0 && e.left.Load() {
		e.close()
	}
}

// Upgraded notes that a place has become a connection that client and instance use as they like, a WebSocket. A drain does not wait
// for those: only the application can close them in order, and it does when it is told to end, which is what the drain precedes.
func (e *Endpoint) Upgraded() {
	e.upgraded.Add(1)
	if e.Draining() && e.requests() <= 0 {
		e.signalIdle()
	}
}

// UpgradeEnded takes Upgraded back. The place is released after it.
func (e *Endpoint) UpgradeEnded() { e.upgraded.Add(-1) }

// requests is the number of places that a drain waits for.
func (e *Endpoint) requests() int64 { return e.InFlight() - e.upgraded.Load() }

// Drain stops new requests from coming to the endpoint. Those in flight go on.
func (e *Endpoint) Drain() { e.state.Or(drainingBit) }

// undrain lets requests come again.
func (e *Endpoint) undrain() { e.state.And(^drainingBit) }

// Restore takes back a Drain that the configuration has not confirmed, and reports whether it did. An instance that was drained to be
// stopped is soon draining or gone in the configuration too; one that is neither was restarted in place and serves again.
func (e *Endpoint) Restore() bool {
	if !e.Draining() || e.told.Load() || e.left.Load() {
		return false
	}
	e.undrain()
	return true
}

// WaitIdle returns nil when no request is in flight at the endpoint, which must be draining, or ctx's error.
func (e *Endpoint) WaitIdle(ctx context.Context) error {
	e.mu.Lock()
	if e.requests() <= 0 {
		e.mu.Unlock()
		return nil
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	// The last release may have come between the count above and the channel; it found no channel then, so look again.
	if e.requests() <= 0 {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Endpoint) signalIdle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.idle != nil {
		close(e.idle)
		e.idle = nil
	}
}

// leave marks the endpoint as removed from its set; its connections are closed when its last request ends.
func (e *Endpoint) leave() {
	e.Drain()
	e.left.Store(true)
	if e.InFlight() == 0 {
		e.close()
	}
}

func (e *Endpoint) close() {
	if e.Upstream != nil {
		_ = e.Upstream.Close()
	}
}

// eject leaves the endpoint alone for a moment and calls back afterwards.
func (e *Endpoint) eject(back func()) {
	shift := min(e.refusals.Add(1)-1, 16)
	pause := min(firstEjection<<shift, maxEjection)
	if old := e.state.Or(ejectedBit); old&ejectedBit != 0 {
		return // the pause is already running
	}
	time.AfterFunc(pause, func() {
		e.state.And(^ejectedBit)
		back()
	})
}

// Refusals is the number of connections refused since the last that was accepted.
func (e *Endpoint) Refusals() int { return int(e.refusals.Load()) }

// Succeeded tells that the endpoint accepted a connection, so that the next ejection starts short again.
func (e *Endpoint) Succeeded() {
	if e.refusals.Load() != 0 {
		e.refusals.Store(0)
	}
}
