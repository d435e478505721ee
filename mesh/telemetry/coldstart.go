package telemetry

import (
	"sync"
	"sync/atomic"
	"time"
)

// ColdStart is the course of one start from zero, in unix nanoseconds.
type ColdStart struct {
	Backend string `json:"backend"`
	// ParkedAt is when the first request was parked.
	ParkedAt int64 `json:"parked_at"`
	// WakeSentAt is when the autoscaler was told.
	WakeSentAt int64 `json:"wake_sent_at"`
	// EndpointAt is when the first endpoint was known.
	EndpointAt int64 `json:"endpoint_at"`
	// FirstByteAt is when the first response began.
	FirstByteAt int64 `json:"first_byte_at"`
}

// ringSize is how many cold starts are remembered.
const ringSize = 256

// ColdStarts remembers the last 256 cold starts of all backends.
type ColdStarts struct {
	// mu guards the ring.
	mu   sync.Mutex
	ring [ringSize]ColdStart
	n    int
}

func (c *ColdStarts) add(s ColdStart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring[c.n%ringSize] = s
	c.n++
}

// Last returns them, oldest first.
func (c *ColdStarts) Last() []ColdStart {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]ColdStart, 0, min(c.n, ringSize))
	for i := max(0, c.n-ringSize); i < c.n; i++ {
		out = append(out, c.ring[i%ringSize])
	}
	return out
}

// coldTracker follows the cold start of one backend.
type coldTracker struct {
	backend string
	all     *ColdStarts
	done    func(ColdStart)
	// open is set while a cold start is in progress, so that the request path needs no lock otherwise.
	open atomic.Bool

	// mu guards current.
	mu      sync.Mutex
	current ColdStart
}

func (c *coldTracker) parked(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = ColdStart{Backend: c.backend, ParkedAt: t.UnixNano()}
	c.open.Store(true)
}

func (c *coldTracker) wakeSent(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.WakeSentAt == 0 {
		c.current.WakeSentAt = t.UnixNano()
	}
}

func (c *coldTracker) endpoint(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.EndpointAt = t.UnixNano()
}

func (c *coldTracker) answered(t time.Time) {
	if !c.open.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A refusal of the proxy itself, before there is an endpoint, is not the answer that the cold start is for.
	if !c.open.Load() || c.current.EndpointAt == 0 {
		return
	}
	c.open.Store(false)
	c.current.FirstByteAt = t.UnixNano()
	c.all.add(c.current)
	c.done(c.current)
}
