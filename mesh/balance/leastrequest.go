package balance

import "math/rand/v2"

// LeastRequest takes the less loaded of two endpoints chosen at random (Mitzenmacher, "The power of two choices in randomized load
// balancing", 2001): nearly as even as the least loaded of all, without reading all. When neither has room it tries every
// endpoint once from a random start, because with a concurrency limit a request may wait only if really none has room.
type LeastRequest struct{}

var _ Policy = LeastRequest{}

// Acquire implements Policy.
func (LeastRequest) Acquire(endpoints []*Endpoint, limit int64) *Endpoint {
	switch n := len(endpoints); n {
	case 0:
		return nil
	case 1:
		if endpoints[0].tryAcquire(limit) {
			return endpoints[0]
		}
		return nil
	default:
		i := rand.IntN(n)     //nolint:gosec // spreads load, protects nothing
		j := rand.IntN(n - 1) //nolint:gosec // likewise
		if j >= i {
			j++
		}
		first, second := endpoints[i], endpoints[j]
		if second.InFlight() < first.InFlight() {
			first, second = second, first
		}
		if first.tryAcquire(limit) {
			return first
		}
		if second.tryAcquire(limit) {
			return second
		}
		return scan(endpoints, limit, i)
	}
}

func scan(endpoints []*Endpoint, limit int64, start int) *Endpoint {
	for k := range endpoints {
		if e := endpoints[(start+k)%len(endpoints)]; e.tryAcquire(limit) {
			return e
		}
	}
	return nil
}
