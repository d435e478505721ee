package telemetry

import (
	"sync/atomic"
	"time"
)

// Load measures the requests of one revision at this proxy. Its methods may be called concurrently; those on the request path
// take no lock. It implements activator.Observer.
type Load struct {
	// Name names the revision in reports. While it is nil, or names none, the load is measured and not reported.
	Name atomic.Pointer[RevisionName]

	clock *Clock
	wake  func()
	cold  *coldTracker

	// word packs the number of requests present (low 20 bits) and the sum of their end times minus the sum of their start times
	// in microseconds (high 44 bits, modulo 2^44). One atomic addition keeps both consistent, and the time-weighted
	// concurrency up to any moment T follows: present*T + sum, the area under the curve of requests present.
	word     atomic.Uint64
	requests atomic.Uint64
	parked   atomic.Int64
	// waking is set until the reporter has sent that requests wait and no endpoint is there.
	waking atomic.Bool
	// atZero is set while requests wait and no endpoint is there.
	atZero atomic.Bool

	// The rest belongs to the reporter.
	last struct {
		area     uint64
		requests uint64
		at       uint64
		reported bool
	}
}

// RevisionName is a revision's namespace and name.
type RevisionName struct{ Namespace, Revision string }

const (
	presentBits = 20
	presentMask = 1<<presentBits - 1
	areaMask    = 1<<(64-presentBits) - 1
)

// Clock counts microseconds from its making. It exists so that all loads share a zero.
type Clock struct{ zero time.Time }

// NewClock returns a clock that starts now.
func NewClock() *Clock { return &Clock{zero: time.Now()} }

func (c *Clock) at(t time.Time) uint64 {
	return uint64(max(t.Sub(c.zero), 0).Microseconds()) & areaMask
}

// Start counts a request that arrived at t.
func (l *Load) Start(t time.Time) {
	l.word.Add(1 - l.clock.at(t)<<presentBits)
	l.requests.Add(1)
}

// End counts that a request ended at t.
func (l *Load) End(t time.Time) {
	l.word.Add(l.clock.at(t)<<presentBits - 1)
}

// Present is the number of requests here, parked ones included.
func (l *Load) Present() int64 { return int64(l.word.Load() & presentMask) }

// Waiting is the number of parked requests.
func (l *Load) Waiting() int64 { return max(l.parked.Load(), 0) }

// area returns the number of requests present and the area under the curve until t, in requests times microseconds modulo 2^44.
func (l *Load) area(t uint64) (present, area uint64) {
	word := l.word.Load()
	present = word & presentMask
	return present, (present*t + word>>presentBits) & areaMask
}

// Parked implements activator.Observer.
func (l *Load) Parked() { l.parked.Add(1) }

// Unparked implements activator.Observer.
func (l *Load) Unparked() { l.parked.Add(-1) }

// Cold implements activator.Observer: it has the reporter ask for an instance at once.
func (l *Load) Cold() {
	l.cold.parked(time.Now())
	l.atZero.Store(true)
	l.waking.Store(true)
	l.wake()
}

// Warm implements activator.Observer.
func (l *Load) Warm() {
	l.atZero.Store(false)
	l.cold.endpoint(time.Now())
}

// Answered tells that a response began at t. It costs one atomic load unless a cold start is in progress.
func (l *Load) Answered(t time.Time) { l.cold.answered(t) }

// take returns the load since the report before and makes now the start of the next. The reporter calls it, nobody else. It
// returns nil when there is nothing to tell.
func (l *Load) take(now time.Time) *RevisionLoad {
	name := l.Name.Load()
	if name == nil || name.Revision == "" {
		return nil
	}
	t := l.clock.at(now)
	present, area := l.area(t)
	requests := l.requests.Load()
	waking := l.waking.Swap(false) || (l.atZero.Load() && l.Waiting() > 0)
	busy := difference(area, l.last.area)
	arrived := requests - l.last.requests
	elapsed := difference(t, l.last.at)
	l.last.area, l.last.requests, l.last.at = area, requests, t
	if present == 0 && busy == 0 && arrived == 0 && !waking {
		if !l.last.reported {
			return nil
		}
		l.last.reported = false // the load has ended: one report of zero, then silence
	} else {
		l.last.reported = true
	}
	average := float64(present)
	if elapsed >= uint64(time.Millisecond.Microseconds()) {
		average = float64(busy) / float64(elapsed)
	}
	parked := min(uint64(l.Waiting()), present)
	return &RevisionLoad{
		Namespace: name.Namespace, Revision: name.Revision, AverageConcurrency: average,
		InFlight: uint32(present - parked), Parked: uint32(parked), Requests: arrived,
		IntervalMs: uint32(max(elapsed/1000, 1)), Wake: waking,
	}
}

// difference is a minus b modulo 2^44, and zero where that is negative: a request may have started between reading the clock and
// reading the word, and then counts a few microseconds that have not come yet.
func difference(a, b uint64) uint64 {
	d := (a - b) & areaMask
	if d > areaMask/2 {
		return 0
	}
	return d
}

// rebase forgets what came before now.
func (l *Load) rebase(now time.Time) {
	t := l.clock.at(now)
	_, l.last.area = l.area(t)
	l.last.at = t
	l.last.requests = l.requests.Load()
}
