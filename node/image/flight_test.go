package image

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestFlights(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights[int]
		ctx, cancel := context.WithCancel(t.Context())
		impatient, giveUp := context.WithCancel(t.Context())
		runs := 0
		type result struct {
			value int
			err   error
		}
		first, second, third := make(chan result, 1), make(chan result, 1), make(chan result, 1)
		call := func(ctx context.Context, out chan<- result, fn func() (int, error)) {
			v, err := f.do(ctx, "key", fn)
			out <- result{v, err}
		}
		go call(ctx, first, func() (int, error) {
			runs++
			<-ctx.Done()
			return 0, ctx.Err()
		})
		synctest.Wait()
		again := func() (int, error) {
			runs++
			return 42, nil
		}
		go call(t.Context(), second, again)
		go call(impatient, third, again)
		synctest.Wait()
		if runs != 1 {
			t.Errorf("%d runs at a time, want 1", runs)
		}
		giveUp()
		if r := <-third; !errors.Is(r.err, context.Canceled) {
			t.Errorf("a caller that gave up got %+v", r)
		}
		cancel()
		if r := <-first; !errors.Is(r.err, context.Canceled) {
			t.Errorf("the canceled run returned %+v", r)
		}
		// The end of the first caller's patience is not the end of the second's.
		if r := <-second; r.err != nil || r.value != 42 {
			t.Errorf("the caller that waited got %+v", r)
		}
		if v, err := f.do(t.Context(), "key", func() (int, error) { return 7, nil }); err != nil || v != 7 {
			t.Errorf("a later call got %d, %v", v, err)
		}
	})
}
