// Package deadline is the filter that keeps a backend's timeouts: of the whole request, to the first byte of the response, and
// between bytes. It stands before the dispatch filter because time spent parked counts.
package deadline

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/filter"
)

// interruptAfter is how long an exchange that is out of time may take to end by itself, before reads and writes of the client are
// made to fail: a client that takes no bytes would otherwise hold it for ever.
const interruptAfter = time.Second

// Filter ends requests that are out of time.
type Filter struct {
	next filter.Handler
}

var _ filter.Handler = (*Filter)(nil)

// New returns the filter before next.
func New(next filter.Handler) *Filter { return &Filter{next: next} }

// watches lends the timers: making one costs more than a request may.
var watches = sync.Pool{New: func() any { return new(watch) }}

// Handle implements filter.Handler.
func (f *Filter) Handle(x *filter.Exchange) error {
	if x.Settings.Request == 0 && x.Settings.ResponseStart == 0 && x.Settings.Idle == 0 {
		return f.next.Handle(x)
	}
	w, _ := watches.Get().(*watch)
	w.start(x)
	defer w.stop()
	err := f.next.Handle(x)
	// A stream ends in order, with the reason as its last words, as in Knative: clients may have all that they wanted.
	var late *filter.Error
	if err != nil && errors.Is(err, engine.ErrCut) && errors.As(err, &late) && filter.Conclude(x, late) {
		return nil
	}
	return err
}

// watch is the timer of one exchange. It is set to the nearest time at which the exchange may be late, and looks then.
type watch struct {
	// mu guards the rest, and keeps the exchange from ending while the timer acts on it.
	mu    sync.Mutex
	timer *time.Timer
	// x is nil between exchanges. A timer that fires late may meet the next one, which it finds in time.
	x       *filter.Exchange
	expired bool
}

func (w *watch) start(x *filter.Exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.x, w.expired = x, false
	left := w.remaining(x.Begun)
	if w.timer == nil {
		w.timer = time.AfterFunc(left, w.fire)
		return
	}
	w.timer.Reset(left)
}

func (w *watch) stop() {
	w.mu.Lock()
	w.x = nil
	w.timer.Stop()
	w.mu.Unlock()
	watches.Put(w)
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.x == nil {
		return
	}
	if w.expired {
		w.x.Interrupt()
		return
	}
	if left := w.remaining(time.Now()); left > 0 {
		w.timer.Reset(left)
		return
	}
	w.expired = true
	text := "request timeout"
	if w.x.Parked.Load() {
		text = "activator request timeout"
	}
	w.x.Cancel(filter.Refuse(http.StatusGatewayTimeout, text))
	w.timer.Reset(interruptAfter)
}

// remaining is the time until the exchange may be late; zero or less when it is.
func (w *watch) remaining(now time.Time) time.Duration {
	s := w.x.Settings
	left := time.Duration(1<<63 - 1)
	if s.Request > 0 {
		left = w.x.Begun.Add(s.Request).Sub(now)
	}
	if s.ResponseStart > 0 && !w.x.Started() {
		left = min(left, w.x.Begun.Add(s.ResponseStart).Sub(now))
	}
	if s.Idle > 0 {
		if w.x.Parked.Load() {
			left = min(left, s.Idle) // no byte can move; the wait is bounded by the other timeouts
		} else {
			left = min(left, w.x.LastMoved().Add(s.Idle).Sub(now))
		}
	}
	return left
}
