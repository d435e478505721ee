package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weft-dev/weft/mesh/config"
)

// Applier takes configuration into use.
type Applier interface {
	// Apply takes the changes of one type: resources to add or replace, and names to remove. It is called from one goroutine, in
	// the order in which the control plane sent, and returns when new requests see the change. An error rejects all of the
	// call's changes: Apply must then have made none of them. It owns upserts afterwards.
	Apply(typeURL string, upserts []config.Resource, removed []string) error
}

// Options of Run.
type Options struct {
	// Target is the control plane's address in gRPC's form, for example "unix:///var/lib/weft/run/control.sock".
	Target string
	// NodeID names this proxy to the control plane, in its logs and in the conditions of routes.
	NodeID string
	// Applier is required.
	Applier Applier
	// OnSynced is called each time the proxy has caught up with the control plane after a connect: it then has every resource
	// of every type that there was. May be nil.
	OnSynced func()
	// MinBackoff and MaxBackoff bound the pause between attempts to connect: 50 ms and 1 s when zero.
	MinBackoff, MaxBackoff time.Duration
	// DialOptions replace the default of no transport security, which fits a unix socket.
	DialOptions []grpc.DialOption
	// Logger is silent when nil.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	switch {
	case o.Target == "":
		return errors.New("target is empty")
	case o.Applier == nil:
		return errors.New("applier is missing")
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = 50 * time.Millisecond
	}
	if o.MaxBackoff < o.MinBackoff {
		o.MaxBackoff = max(time.Second, o.MinBackoff)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(o.DialOptions) == 0 {
		o.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	return nil
}

// Run keeps the stream until ctx ends, which is the only way that it returns without an error; the other is a wrong option. While the
// control plane is away, the proxy goes on with what was applied.
func Run(ctx context.Context, opts Options) error {
	if err := opts.complete(); err != nil {
		return fmt.Errorf("starting configuration client: %w", err)
	}
	sess := newSession(opts)
	pause := opts.MinBackoff
	for {
		synced, err := sess.run(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is the way to stop
		}
		if synced {
			pause = opts.MinBackoff
		}
		level := slog.LevelDebug
		if synced && !errors.Is(err, io.EOF) {
			level = slog.LevelWarn
		}
		opts.Logger.Log(ctx, level, "configuration stream ended", slog.Any("error", err), slog.Duration("retry", pause))
		if !wait(ctx, jitter(pause)) {
			return nil
		}
		pause = min(2*pause, opts.MaxBackoff)
	}
}

// jitter spreads the reconnects of many proxies over a quarter of the pause.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/4+1) //nolint:gosec // spreads load, protects nothing
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
