package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newParts(t *testing.T) (*parts, context.Context) {
	t.Helper()
	ctx, fail := context.WithCancelCause(t.Context())
	t.Cleanup(func() { fail(nil) })
	return &parts{fail: fail, log: slog.New(slog.DiscardHandler)}, ctx
}

func TestPartsStopInReverseOrder(t *testing.T) {
	t.Parallel()
	p, ctx := newParts(t)
	var stopped []string
	for _, name := range []string{"api", "controllers", "proxy"} {
		p.start(name, func(ctx context.Context) error {
			<-ctx.Done()
			stopped = append(stopped, name) // Ordered by stopAll, which waits for each.
			return context.Cause(ctx)
		})
		if name == "controllers" {
			p.then("containers", func() error {
				stopped = append(stopped, "containers")
				return nil
			})
		}
	}
	if err := p.stopAll(); err != nil {
		t.Errorf("stopAll: %v", err)
	}
	if diff := cmp.Diff([]string{"proxy", "containers", "controllers", "api"}, stopped); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if ctx.Err() != nil {
		t.Errorf("an orderly stop counts as a failure: %v", context.Cause(ctx))
	}
}

func TestPartsThatEndByThemselvesFail(t *testing.T) {
	t.Parallel()
	errBroken := errors.New("broken")
	tests := []struct {
		name string
		run  func(context.Context) error
		want string
	}{
		{name: "with an error", run: func(context.Context) error { return errBroken }, want: "api: broken"},
		{name: "without an error", run: func(context.Context) error { return nil }, want: "api: ended by itself"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, ctx := newParts(t)
			p.start("api", test.run)
			<-ctx.Done()
			if got := context.Cause(ctx); got == nil || got.Error() != test.want {
				t.Errorf("cause %v, want %q", got, test.want)
			}
			if err := p.stopAll(); err != nil {
				t.Errorf("the failure is reported twice: %v", err)
			}
		})
	}
}

func TestStopAllGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	p, _ := newParts(t)
	reached := false
	p.then("first", func() error {
		reached = true
		return nil
	})
	p.then("second", func() error { return errors.New("stuck") })
	err := p.stopAll()
	if err == nil || !strings.Contains(err.Error(), "stopping second: stuck") {
		t.Errorf("error %v, want that of second", err)
	}
	if !reached {
		t.Error("an error kept the parts before from being stopped")
	}
}
