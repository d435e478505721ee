package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// parts are what runs, in the order in which it was started. They are stopped one after the other in reverse order, because each
// needs those before it until its end.
type parts struct {
	// fail ends the platform when a part ends by itself.
	fail  context.CancelCauseFunc
	log   *slog.Logger
	stops []stop
}

type stop struct {
	name string
	fn   func() error
}

// start runs a part with a context of its own, which carries no end but that of stopAll.
func (p *parts) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			p.fail(fmt.Errorf("%s: %w", name, err))
			err = nil // Reported by fail.
		}
		done <- err
	}()
	p.then(name, func() error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

// then adds something to do when the parts started so far are about to be stopped.
func (p *parts) then(name string, fn func() error) {
	p.stops = append(p.stops, stop{name: name, fn: fn})
}

func (p *parts) stopAll() error {
	var errs []error
	for _, s := range slices.Backward(p.stops) {
		began := time.Now()
		if err := s.fn(); err != nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", s.name, err))
		}
		p.log.Debug("stopped", "part", s.name, "took", time.Since(began))
	}
	return errors.Join(errs...)
}
