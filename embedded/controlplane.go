package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/weft-dev/weft/embedded/apiserver"
	"github.com/weft-dev/weft/embedded/controllers"
	"github.com/weft-dev/weft/embedded/etcd"
	"github.com/weft-dev/weft/embedded/metrics"
	"github.com/weft-dev/weft/embedded/pki"
	"github.com/weft-dev/weft/embedded/relay"
	"github.com/weft-dev/weft/embedded/scheduler"
	"github.com/weft-dev/weft/internal/instance"
)

// DefaultAPIPort is the port of the API server on loopback.
const DefaultAPIPort = 6443

// renewEvery is how often certificates are looked at while running.
const renewEvery = 24 * time.Hour

// Options of a ControlPlane.
type Options struct {
	// Instance names directories and networks.
	Instance instance.Instance
	// APIPort is the port of the API on 127.0.0.1, and on the gateway address for pods. Default 6443.
	APIPort int
	// NodeName is the name of the Node. Default the instance's name, which unlike the host's name never changes.
	NodeName string
	// Bootstrap is called with the administrator's access when the API answers and before controllers start, on every start.
	// It is the place for custom resource definitions: the garbage collector learns at once only of those that it finds.
	Bootstrap func(context.Context, *rest.Config) error
	// Metrics is where the API's metrics.k8s.io has its figures from; it returns nil while there is no node. Nil serves no such group.
	Metrics func() metrics.Source
	// Step is called when a part has started, with its name and the time it took. It must not block.
	Step func(name string, took time.Duration)
	// Log defaults to slog.Default. The logs of etcd and Kubernetes go to files below <state>/logs instead.
	Log *slog.Logger
}

// ControlPlane is a Kubernetes control plane. New makes it, Run runs it once.
type ControlPlane struct {
	opts  Options
	files pki.Files
	ready chan struct{}
}

// New makes certificates and kubeconfigs that are missing. Nothing runs yet.
func New(opts Options) (*ControlPlane, error) {
	if err := opts.Instance.Validate(); err != nil {
		return nil, err
	}
	if opts.APIPort == 0 {
		opts.APIPort = DefaultAPIPort
	}
	if opts.NodeName == "" {
		opts.NodeName = opts.Instance.Name
	}
	if opts.Step == nil {
		opts.Step = func(string, time.Duration) {}
	}
	if opts.Bootstrap == nil {
		opts.Bootstrap = func(context.Context, *rest.Config) error { return nil }
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	c := &ControlPlane{opts: opts, ready: make(chan struct{})}
	for _, dir := range []string{c.runDir(), c.logDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making directory: %w", err)
		}
	}
	if err := c.renew(); err != nil {
		return nil, err
	}
	return c, nil
}

// Ready is closed when the API is ready, Bootstrap has returned and controllers and scheduler run.
func (c *ControlPlane) Ready() <-chan struct{} { return c.ready }

// NodeName is the name of the Node that the node agent registers.
func (c *ControlPlane) NodeName() string { return c.opts.NodeName }

// Files are the paths of the certificates, for the node agent's server.
func (c *ControlPlane) Files() pki.Files { return c.files }

// RESTConfig is the administrator's access, without a client-side rate limit. The caller owns the result.
func (c *ControlPlane) RESTConfig() *rest.Config {
	return &rest.Config{
		Host:  "https://" + c.address().String(),
		QPS:   -1,
		Burst: -1,
		// Files, not bytes: a renewed certificate is picked up without a restart.
		TLSClientConfig: rest.TLSClientConfig{CertFile: c.files.Admin.Cert, KeyFile: c.files.Admin.Key, CAFile: c.files.CA.Cert},
	}
}

// Run runs the control plane until ctx ends or a part fails, then stops the parts in reverse order and waits for them.
func (c *ControlPlane) Run(ctx context.Context) (err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	logs, err := openLogs(c.logDir())
	if err != nil {
		return err
	}
	defer func() { _ = logs.Close() }()
	relayed, err := relay.Listen(ctx, c.advertised().String(), c.address().String(), c.opts.Log)
	if err != nil {
		return err
	}
	defer func() { _ = relayed.Close() }()

	began := time.Now()
	store, err := etcd.Start(ctx, etcd.Options{DataDir: c.opts.Instance.Path("etcd"), RunDir: c.runDir(), Log: logs.etcd})
	if err != nil {
		return err
	}
	defer store.Stop()
	c.opts.Step("etcd", time.Since(began))

	began = time.Now()
	stopAPI := start(fail, "kube-apiserver", func(ctx context.Context) error {
		return apiserver.Run(ctx, apiserver.Options{
			Etcd: store.Endpoint(), Port: c.opts.APIPort, Advertise: c.opts.Instance.Gateway(),
			ServiceCIDR: c.opts.Instance.ServiceCIDR, Files: c.files, Metrics: c.opts.Metrics,
		})
	})
	defer func() { err = errors.Join(err, stopAPI()) }()
	if err := waitReady(ctx, c.RESTConfig()); err != nil {
		return err
	}
	c.opts.Step("kube-apiserver", time.Since(began))

	began = time.Now()
	if c.opts.Metrics != nil {
		if err := metrics.Register(ctx, c.RESTConfig()); err != nil {
			return err
		}
	}
	if err := c.opts.Bootstrap(ctx, c.RESTConfig()); err != nil {
		return fmt.Errorf("setting up the API: %w", err)
	}
	c.opts.Step("bootstrap", time.Since(began))

	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return controllers.Run(groupCtx, controllers.Options{Kubeconfig: c.kubeconfig("controller-manager"), Files: c.files})
	})
	group.Go(func() error { return scheduler.Run(groupCtx, c.kubeconfig("scheduler")) })
	group.Go(func() error { return relayed.Run(groupCtx) })
	group.Go(func() error { return c.keepRenewing(groupCtx) })
	group.Go(func() error { return watchStore(groupCtx, store) })
	close(c.ready)
	err = group.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// start runs a part beside the caller. The part's own failure is reported to fail; stop ends the part and waits for it.
func start(fail context.CancelCauseFunc, name string, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("stopped by itself")
			}
			fail(fmt.Errorf("%s: %w", name, err))
		}
		done <- err
	}()
	return func() error {
		cancel()
		return <-done
	}
}

func watchStore(ctx context.Context, store *etcd.Server) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-store.Err():
		return fmt.Errorf("etcd: %w", err)
	}
}

func (c *ControlPlane) keepRenewing(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := c.renew(); err != nil {
				c.opts.Log.Error("renewing certificates", "error", err)
			}
		}
	}
}

// renew brings certificates and the kubeconfigs that contain or name them up to date.
func (c *ControlPlane) renew() error {
	files, err := pki.Ensure(pki.Options{
		Dir: c.opts.Instance.Path("pki"), NodeName: c.opts.NodeName,
		Addresses: []netip.Addr{c.opts.Instance.Gateway(), c.opts.Instance.APIServiceIP()},
	})
	if err != nil {
		return err
	}
	c.files = files
	return c.writeKubeconfigs()
}

func (c *ControlPlane) runDir() string { return c.opts.Instance.Path("run") }
func (c *ControlPlane) logDir() string { return c.opts.Instance.Path("logs") }

func (c *ControlPlane) address() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(c.opts.APIPort))
}

func (c *ControlPlane) advertised() netip.AddrPort {
	return netip.AddrPortFrom(c.opts.Instance.Gateway(), uint16(c.opts.APIPort))
}

// Address is host and port of the API, for messages.
func (c *ControlPlane) Address() string { return "127.0.0.1:" + strconv.Itoa(c.opts.APIPort) }
