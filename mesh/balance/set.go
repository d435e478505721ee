package balance

import (
	"io"
	"sync"
	"sync/atomic"
)

// Policy chooses an endpoint and takes a place at it. It returns nil when none has room. Implementations are safe for concurrent
// use, do not block and do not keep the slice.
type Policy interface {
	Acquire(endpoints []*Endpoint, limit int64) *Endpoint
}

// Target says where one endpoint of a set is.
type Target struct {
	// Address is "ip:port", IP its first part.
	Address, IP string
	// Pod is "<namespace>/<name>", or empty.
	Pod string
	// Draining endpoints finish what they have and get nothing new.
	Draining bool
}

// Set holds the endpoints of one backend. Acquire and Release take no lock.
type Set struct {
	policy Policy
	dial   func(address string) io.Closer

	endpoints atomic.Pointer[[]*Endpoint]
	limit     atomic.Int64

	// mu guards known and orders updates.
	mu sync.Mutex
	// known holds the endpoints of the set and those that left it with requests in flight, so that an endpoint that comes back
	// keeps its count.
	known map[key]*Endpoint
}

type key struct{ address, pod string }

// NewSet returns an empty set. Dial is called once per new endpoint for its Upstream; nil gives none.
func NewSet(policy Policy, dial func(address string) io.Closer) *Set {
	s := &Set{policy: policy, dial: dial, known: make(map[key]*Endpoint)}
	s.endpoints.Store(new([]*Endpoint))
	return s
}

// SetLimit sets the greatest number of requests in flight per endpoint; zero means no limit. Requests beyond a lowered limit go on.
func (s *Set) SetLimit(limit int64) { s.limit.Store(limit) }

// Acquire takes a place at an endpoint, or returns nil when none has room.
func (s *Set) Acquire() *Endpoint {
	return s.policy.Acquire(*s.endpoints.Load(), s.limit.Load())
}

// Release gives back a place that Acquire took.
func (s *Set) Release(e *Endpoint) { e.release() }

// Eject leaves an endpoint that refused a connection alone for a moment and then calls back.
func (s *Set) Eject(e *Endpoint, back func()) { e.eject(back) }

// Endpoints are those of the last update. The slice must not be changed.
func (s *Set) Endpoints() []*Endpoint { return *s.endpoints.Load() }

// Usable is the number of endpoints that are not draining. Ejected ones count: they are there and come back by themselves.
func (s *Set) Usable() int {
	n := 0
	for _, e := range *s.endpoints.Load() {
		if !e.Draining() {
			n++
		}
	}
	return n
}

// Update replaces the endpoints. One that stays keeps its connections and its count; one that was drained here stays drained until
// it has been absent from an update or is restored, since the control plane may learn of the drain later than the proxy.
func (s *Set) Update(targets []Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.endpoints.Load()
	next := make([]*Endpoint, 0, len(targets))
	staying := make(map[*Endpoint]bool, len(targets))
	for _, t := range targets {
		e := s.endpoint(t)
		if staying[e] {
			continue
		}
		staying[e] = true
		e.told.Store(t.Draining)
		if t.Draining {
			e.Drain()
		}
		next = append(next, e)
	}
	s.endpoints.Store(&next)
	for _, e := range old {
		if !staying[e] {
			e.leave()
		}
	}
	for k, e := range s.known {
		if !staying[e] && e.InFlight() == 0 {
			delete(s.known, k)
		}
	}
}

// endpoint returns the known endpoint of a target or makes one. The caller holds mu.
func (s *Set) endpoint(t Target) *Endpoint {
	k := key{t.Address, t.Pod}
	e, ok := s.known[k]
	if ok && !e.left.Load() {
		return e
	}
	fresh := &Endpoint{Address: t.Address, IP: t.IP, Pod: t.Pod}
	if ok && e.InFlight() > 0 {
		// It left with requests in flight and is back before they ended: the same endpoint, so that the limit stays exact. It is
		// usable again, and its connections are closed only when it leaves for good.
		e.left.Store(false)
		e.undrain()
		return e
	}
	if s.dial != nil {
		fresh.Upstream = s.dial(t.Address)
	}
	s.known[k] = fresh
	return fresh
}
