package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weft-dev/weft/mesh/capture"
	meshconfig "github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute/client"
	"github.com/weft-dev/weft/mesh/dns"
	"github.com/weft-dev/weft/mesh/proxy"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// gcPercent trades a heap of a few megabytes for half the collections. The limit keeps a burst of large requests from growing the
// process without bound; it is far above what the proxy needs.
const (
	gcPercent   = 200
	memoryLimit = 512 << 20
)

// adminTimeout bounds the header of a request to the admin socket and the metrics.
const adminTimeout = 5 * time.Second

// run runs the proxy until ctx ends.
func run(ctx context.Context, cfg config, logs io.Writer) error {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: cfg.logLevel}))

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := telemetry.NewMetrics(registry)
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	conn, err := grpc.NewClient(cfg.control, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			// Parked requests wait for this connection when the control plane restarts.
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return fmt.Errorf("preparing connection to %q: %w", cfg.control, err)
	}
	defer func() { _ = conn.Close() }()
	reporter := telemetry.NewReporter(cfg.node, telemetry.NewLoadServiceClient(conn), log.With("component", "reporter"))
	dataPlane := proxy.New(proxy.Options{Metrics: metrics, Reporter: reporter, DrainTimeout: cfg.drainTimeout, AccessLog: os.Stdout, Log: log})
	registry.MustRegister(dataPlane.Certificates())

	// Requests end before what serves them does: the proxy stops at ctx's end, the rest when the proxy has stopped.
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	group, rest := errgroup.WithContext(rest)
	ctx, stopProxy := context.WithCancel(ctx)
	defer context.AfterFunc(rest, stopProxy)()
	group.Go(func() error {
		defer stopRest()
		return dataPlane.Run(ctx)
	})
	group.Go(func() error { return reporter.Run(rest) })
	appliers := appliers{dataPlane}
	names, err := cfg.dnsAddresses()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		server := nameServer(cfg, names, log)
		appliers = append(appliers, server)
		group.Go(func() error { return server.Run(rest) })
	}
	if cfg.captureTCP != "" {
		server := captureServer(cfg, dataPlane, log)
		appliers = append(appliers, server)
		group.Go(func() error { return server.Run(rest) })
	}
	group.Go(func() error {
		return client.Run(rest, client.Options{
			Target: cfg.control, NodeID: cfg.node, Applier: appliers, OnSynced: dataPlane.SetSynced, Logger: log.With("component", "config"),
		})
	})
	if cfg.metricsAddress != "" {
		group.Go(func() error {
			mux := http.NewServeMux()
			mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
			return listenAndServe(rest, "tcp", cfg.metricsAddress, mux)
		})
	}
	if cfg.adminSocket != "" {
		group.Go(func() error {
			return listenAndServe(rest, "unix", cfg.adminSocket, dataPlane.Admin(metrics.ColdStarts()))
		})
	}
	return group.Wait()
}

// appliers give a change to each part of the data plane; each takes the types that concern it.
type appliers []client.Applier

var _ client.Applier = appliers(nil)

// Apply implements client.Applier. The proxy is first, because it alone can reject what is valid, when a port is in use.
func (a appliers) Apply(typeURL string, upserts []meshconfig.Resource, removed []string) error {
	for _, applier := range a {
		if err := applier.Apply(typeURL, upserts, removed); err != nil {
			return err
		}
	}
	return nil
}

func nameServer(cfg config, listen []netip.AddrPort, log *slog.Logger) *dns.Server {
	return dns.New(dns.Options{
		Listen: listen, Domain: cfg.dnsDomain,
		Gateway: netip.MustParseAddr(cfg.gatewayAddress), Logger: log.With("component", "dns"),
	})
}

func captureServer(cfg config, dataPlane *proxy.Proxy, log *slog.Logger) *capture.Server {
	return capture.New(capture.Options{
		Listen:       netip.MustParseAddrPort(cfg.captureTCP),
		LocalAddress: netip.AddrPortFrom(netip.MustParseAddr(cfg.gatewayAddress), uint16(cfg.localPort)),
		ServeLocal:   dataPlane.ServeLocal, Drain: dataPlane.WaitDrained, DrainTimeout: cfg.drainTimeout, Logger: log.With("component", "capture"),
	})
}

// listenAndServe serves until ctx ends. The socket file of a proxy that was killed is replaced.
func listenAndServe(ctx context.Context, network, address string, handler http.Handler) error {
	if network == "unix" {
		if err := os.Remove(address); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing old socket: %w", err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: adminTimeout}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
