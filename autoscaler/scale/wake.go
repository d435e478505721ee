package scale

import (
	"sync"
	"time"
)

// wakesKept is how many wakes a Scaler remembers.
const wakesKept = 256

// Wake is the history of one start from zero.
type Wake struct {
	Namespace, Revision string
	// From and To are the scales before and after.
	From, To int32
	// Received is when the proxy's report arrived, Decided when the scale was known, Sent when the patch was handed to the client,
	// and Answered when the API server had made it.
	Received, Decided, Sent, Answered time.Time
	// Err is why the patch failed, or nil.
	Err error
}

// wakeLog keeps the last wakes.
type wakeLog struct {
	// mu guards what is below.
	mu    sync.Mutex
	wakes []Wake
	// next is where the next one goes once the log is full.
	next int
}

func (l *wakeLog) add(w Wake) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wakes) < wakesKept {
		l.wakes = append(l.wakes, w)
		return
	}
	l.wakes[l.next] = w
	l.next = (l.next + 1) % wakesKept
}

// woke counts and remembers a wake.
func (s *Scaler) woke(w Wake) {
	s.wakes.add(w)
	s.woken.Add(1)
	if s.wakeSeconds != nil && w.Err == nil {
		s.wakeSeconds.Observe(w.Answered.Sub(w.Received).Seconds())
	}
}

// WakeLog returns the last 256 wakes, oldest first.
func (s *Scaler) WakeLog() []Wake {
	s.wakes.mu.Lock()
	defer s.wakes.mu.Unlock()
	return append(append([]Wake(nil), s.wakes.wakes[s.wakes.next:]...), s.wakes.wakes[:s.wakes.next]...)
}
