// Package etcd runs a one-member etcd in this process. Package embedded starts it before the API server and stops it after it.
// It listens on unix sockets only, below a directory that other users cannot enter, so it needs no TLS and no port.
// It imports nothing of Kubernetes.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Timing of raft. A single member elects itself, so the election timeout is nothing but a delay at start; the tick is kept long
// enough to cost no processor time when idle.
const (
	tickMillis     = 50
	electionMillis = 250
)

// snapshotEntries is how many entries stay in memory and in the log until a snapshot lets them go.
const snapshotEntries = 10_000

// Options of a Server.
type Options struct {
	// DataDir holds the write-ahead log and the database.
	DataDir string
	// RunDir holds the sockets. Their paths must be shorter than 108 bytes, the kernel's limit.
	RunDir string
	// Log receives etcd's own log as JSON lines.
	Log io.Writer
}

// Server is a running etcd.
type Server struct {
	etcd     *embed.Etcd
	endpoint string
}

// Start starts etcd and returns when it has elected itself and serves, or when ctx ends.
func Start(ctx context.Context, opts Options) (*Server, error) {
	cfg := configuration(opts)
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making etcd data directory: %w", err)
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting etcd in %q: %w", opts.DataDir, err)
	}
	s := &Server{etcd: e, endpoint: cfg.ListenClientUrls[0].String()}
	select {
	case <-e.Server.ReadyNotify():
		return s, nil
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = errors.New("stopped by itself, see its log")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.Stop()
	return nil, fmt.Errorf("waiting for etcd: %w", err)
}

// Endpoint is the address for --etcd-servers.
func (s *Server) Endpoint() string { return s.endpoint }

// Err carries the error of a server that stops without being asked to.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Stop closes connections and the database and returns when the files are closed.
func (s *Server) Stop() { s.etcd.Close() }

func configuration(opts Options) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "weft"
	cfg.Dir = opts.DataDir
	cfg.ListenClientUrls = []url.URL{socket(opts.RunDir, "etcd.sock")}
	// Health and metrics have a socket of their own: without it every gRPC connection goes through a protocol sniffer.
	cfg.ListenClientHttpUrls = []url.URL{socket(opts.RunDir, "etcd-http.sock")}
	cfg.ListenPeerUrls = []url.URL{socket(opts.RunDir, "etcd-peer.sock")}
	// Advertised addresses must look like host:port. A lone member never dials them; they are part of its identity on disk.
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "localhost:2379"}}
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = tickMillis, electionMillis
	cfg.SnapshotCount = snapshotEntries
	cfg.EnableGRPCGateway = false
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	logger := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(opts.Log), zapcore.WarnLevel))
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	return cfg
}

func socket(dir, name string) url.URL {
	return url.URL{Scheme: "unix", Path: filepath.Join(dir, name)}
}
