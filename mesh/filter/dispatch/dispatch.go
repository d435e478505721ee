// Package dispatch is the last filter: it takes a place at an instance, waiting for one if need be, forwards the request, and tries
// again where that is safe. The activator is part of this step and not a hop of its own.
package dispatch

import (
	"errors"
	"fmt"

	"github.com/weft-dev/weft/mesh/balance"
	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/filter"
)

// Filter sends requests to instances.
type Filter struct{}

var _ filter.Handler = Filter{}

// New returns the filter.
func New() Filter { return Filter{} }

// Handle implements filter.Handler.
func (Filter) Handle(x *filter.Exchange) error {
	var refused error
	retried := false
	for {
		e, err := enter(x, refused != nil)
		if err != nil {
			if refused != nil && x.Cause() == nil {
				return fmt.Errorf("%w: after %w", err, refused)
			}
			return err
		}
		err = attempt(x, e)
		switch {
		case err == nil || x.Started():
			return err
		case errors.Is(err, engine.ErrNotConnected) && x.Resendable():
			// Nothing was sent. The instance is left alone for a moment, so this goes to another or waits for the same one.
			refused = err
		case errors.Is(err, engine.ErrNoResponse) && x.Replayable() && !retried:
			// Most often a connection that the instance closed while the request was on its way. Once, or a request that kills
			// instances would kill them all.
			retried = true
		default:
			return err
		}
	}
}

// attempt forwards to one instance and gives the place there back, whatever happens.
func attempt(x *filter.Exchange, e *balance.Endpoint) (err error) {
	gate := x.Backend.Gate
	leave := gate.Leave
	defer func() { leave(e) }()
	upstream, ok := e.Upstream.(*engine.Upstream)
	if !ok {
		return fmt.Errorf("endpoint %s of backend %q has no upstream", e.Address, x.Backend.Name)
	}
	x.Endpoint, x.Place = e, e
	x.Moved()
	err = x.Forward(upstream, x.Settings.Protocol)
	if errors.Is(err, engine.ErrNotConnected) {
		leave = gate.Refused
		return fmt.Errorf("%s: %w", e.Address, err)
	}
	if err != nil && !errors.Is(err, engine.ErrCut) && x.Cause() == nil {
		return fmt.Errorf("%s: %w", e.Address, err)
	}
	e.Succeeded()
	return err
}

// enter takes a place at an instance.
func enter(x *filter.Exchange, again bool) (*balance.Endpoint, error) {
	gate := x.Backend.Gate
	if e := gate.TryEnter(); e != nil {
		return e, nil
	}
	ticket, err := gate.Park(again)
	if err != nil {
		return nil, err
	}
	x.Parked.Store(true)
	defer x.Parked.Store(false)
	// In this order: an instance is on its way while the body comes in.
	if err := x.Buffer(); err != nil {
		ticket.Cancel()
		if cause := x.Cause(); cause != nil {
			return nil, cause
		}
		return nil, engine.ErrClientGone
	}
	return ticket.Wait(x.Context())
}
