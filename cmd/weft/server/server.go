package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weft-dev/weft/cmd/weft/preflight"
	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/embedded"
	"github.com/weft-dev/weft/embedded/metrics"
	"github.com/weft-dev/weft/mesh/distribute"
	"github.com/weft-dev/weft/mesh/telemetry"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/stats"
)

// Options of Run.
type Options struct {
	Settings settings.Settings
	Binaries preflight.Binaries
	// Version of weft, for the Node's status.
	Version string
	// Step is called when a part has started, with the time it took. It may be called concurrently.
	Step func(name string, took time.Duration)
	// Ready is called once, when requests can be served.
	Ready func()
	// Stopping is called once, when the end of ctx begins an orderly stop.
	Stopping func()
	Log      *slog.Logger
}

// platform is one run.
type platform struct {
	Options
	parts   *parts
	control *embedded.ControlPlane
	mesh    *distribute.Server
	images  *image.Store
	// look asks the autoscaler; nil until it has been made.
	look atomic.Pointer[look]
	// stats is nil until the node agent exists.
	stats atomic.Pointer[stats.Stats]
}

// Run runs the platform until ctx ends or a part fails, and then stops it in order: first the proxy finishes its requests, then the
// containers are stopped, then the controllers, then the API. Nothing of that happens when the process is killed: then
// containers and proxy go on, and the next Run adopts them.
func Run(ctx context.Context, opts Options) (err error) {
	steady := tuneStart()
	if err := setClusterDomain(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	p := &platform{
		Options: opts,
		parts:   &parts{fail: fail, log: opts.Log},
		mesh:    distribute.New(distribute.Options{Logger: opts.Log.With("component", "distribute")}),
	}
	defer func() {
		if errors.Is(context.Cause(ctx), context.Canceled) {
			opts.Stopping()
		}
		err = errors.Join(err, p.parts.stopAll())
	}()
	if err := p.start(ctx); err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
			return cause // Why start was interrupted, rather than that it was.
		}
		if ctx.Err() != nil {
			return nil // Ctrl-C while starting.
		}
		return err
	}
	opts.Ready()
	steady()
	p.parts.start("memory", reclaim)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// start starts the parts in the order in which they need each other.
func (p *platform) start(ctx context.Context) error {
	images, err := image.Open(p.Settings.Path("images"), image.Options{Logger: p.Log.With("component", "images")})
	if err != nil {
		return err
	}
	p.images = images
	control, err := embedded.New(embedded.Options{
		Instance: p.Settings.Instance, APIPort: p.Settings.APIPort, Bootstrap: applyManifests, Metrics: p.metrics,
		Step: p.Step, Log: p.Log,
	})
	if err != nil {
		return err
	}
	p.control = control
	p.parts.start("debug socket", func(ctx context.Context) error { return serveDebug(ctx, p.Settings.Path("run", "debug.sock"), &p.look) })
	p.parts.start("control plane", control.Run)
	if err := wait(ctx, control.Ready()); err != nil {
		return err
	}

	began := time.Now()
	load, err := p.startControllers(ctx)
	if err != nil {
		return err
	}
	p.parts.start("control socket", func(ctx context.Context) error {
		return serveControl(ctx, p.Settings.ControlSocket(), func(s *grpc.Server) {
			p.mesh.Register(s)
			telemetry.RegisterLoadServiceServer(s, load)
		})
	})
	p.Step("controllers", time.Since(began))

	began = time.Now()
	if err := p.startNode(ctx); err != nil {
		return err
	}
	p.Step("node", time.Since(began))

	began = time.Now()
	if err := p.startProxy(ctx); err != nil {
		return err
	}
	p.Step("proxy", time.Since(began))
	return nil
}

// metrics is where metrics.k8s.io has its figures from, nil until there is a node.
func (p *platform) metrics() metrics.Source {
	if s := p.stats.Load(); s != nil {
		return s
	}
	return nil
}

// wait returns when done is closed, or with the reason for which ctx ended.
func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("starting: %w", context.Cause(ctx))
	}
}
