// Package measure is the filter that counts requests and turns errors into responses. It stands before everything that can refuse
// or delay a request to a backend, so that refusals and waiting are counted as what the client saw.
package measure

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/filter"
)

// Filter counts requests.
type Filter struct {
	next filter.Handler
	log  *slog.Logger

	// warned is the second of the last warning, and silent the number of refusals since that were not logged.
	warned, silent atomic.Int64
}

var _ filter.Handler = (*Filter)(nil)

// New returns the filter before next.
func New(next filter.Handler, log *slog.Logger) *Filter { return &Filter{next: next, log: log} }

// Handle implements filter.Handler. The only errors it returns are cut responses, which the caller must end the connection for.
func (f *Filter) Handle(x *filter.Exchange) error {
	m := x.Backend.Measure
	m.Start(x.Begun)
	x.Observer = m.Load
	// Deferred, so that a panic does not leave the request counted as present for ever.
	defer func() { m.End(x.Status, x.Begun, time.Now()) }()

	err := f.next.Handle(x)
	switch {
	case err == nil:
		return nil
	case x.Started():
		if !errors.Is(err, engine.ErrClientGone) {
			f.log.Debug("response cut", "backend", x.Backend.Name, "error", err)
		}
		return err
	}
	refusal := filter.Explain(err)
	if refusal == nil {
		return engine.ErrCut // the client has left; nothing is worth writing
	}
	if refusal.Status >= 500 {
		f.warn(x, refusal, err)
	}
	return filter.Answer(x, refusal)
}

// warn logs a refusal, at most one a second: a service that is down under load must not take the disk with it. The metrics count all.
func (f *Filter) warn(x *filter.Exchange, refusal *filter.Error, err error) {
	second := x.Begun.Unix()
	if last := f.warned.Load(); last == second || !f.warned.CompareAndSwap(last, second) {
		f.silent.Add(1)
		return
	}
	f.log.Warn("request refused",
		"backend", x.Backend.Name, "status", refusal.Status, "error", err, "more_since_last", f.silent.Swap(0))
}
