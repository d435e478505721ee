package image

import (
	"context"
	"errors"
	"sync"
)

// flights lets callers that ask for the same thing at the same time share one run. The zero value is ready.
type flights[V any] struct {
	// mu guards running.
	mu      sync.Mutex
	running map[string]*flight[V]
}

// flight is one run. value and err are set before done closes.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// do runs fn unless a run for key is under way, in which case it waits for that one. The first caller runs fn itself, with its own
// context; when that context ends, a caller that still waits becomes the next to run.
func (f *flights[V]) do(ctx context.Context, key string, fn func() (V, error)) (V, error) {
	for {
		f.mu.Lock()
		c, ok := f.running[key]
		if !ok {
			break
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			var zero V
			return zero, ctx.Err()
		case <-c.done:
		}
		if canceled(c.err) && ctx.Err() == nil {
			continue
		}
		return c.value, c.err
	}
	if f.running == nil {
		f.running = map[string]*flight[V]{}
	}
	c := &flight[V]{done: make(chan struct{})}
	f.running[key] = c
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.running, key)
		f.mu.Unlock()
		close(c.done)
	}()
	c.value, c.err = fn()
	return c.value, c.err
}

// canceled reports whether a run ended because of its caller and not because of the work.
func canceled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
