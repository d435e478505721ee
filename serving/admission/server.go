// Package admission serves the webhooks that complete and check Knative's objects and configuration before the API server stores
// them: /defaulting, /resource-validation and /config-validation, at upstream's names and with upstream's texts, because the same
// published types do the work. cmd/weft and cmd/controller add a Server to their manager. It imports no controller but
// serving/revision, for the pod that a dry run is about.
//
// Three things are left out that upstream's rules name, because its handlers do nothing about them: deletions, updates of status,
// and the kinds that Weft does not have. Each would cost a round trip for every such call.
package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/weft-dev/weft/serving/config"
)

// The paths of the webhooks.
const (
	defaultingPath       = "/defaulting"
	validationPath       = "/resource-validation"
	configValidationPath = "/config-validation"
)

// shutdownTime is what requests that are being answered get when the Server stops.
const shutdownTime = 5 * time.Second

// Options of a Server.
type Options struct {
	// Config is what is defaulted and validated with. Required.
	Config *config.Store
	// Listener is where the API server reaches the Server; Run closes it. By default it is a free port of 127.0.0.1.
	Listener net.Listener
	// Service is how a cluster's API server reaches the Server. Without it the address of Listener is registered.
	Service *Service
	// Certificate is what the Server shows. By default a new one is made at each start, which serves one replica; several share one.
	Certificate *Certificate
	// Logger is slog.Default() by default.
	Logger *slog.Logger
}

// Service names a Kubernetes Service in front of the Server.
type Service struct {
	Namespace, Name string
	Port            int32
}

// Server is the webhook server.
type Server struct {
	options Options
	clients kubernetes.Interface
	ready   chan struct{}
}

var _ manager.LeaderElectionRunnable = (*Server)(nil)

// New returns a Server that registers itself, and runs the pods of dry runs, through clients.
func New(clients kubernetes.Interface, options Options) *Server {
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	return &Server{options: options, clients: clients, ready: make(chan struct{})}
}

// AddToManager adds a Server to mgr.
func AddToManager(mgr manager.Manager, options Options) (*Server, error) {
	clients, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("making a client for admission: %w", err)
	}
	s := New(clients, options)
	if err := mgr.Add(s); err != nil {
		return nil, fmt.Errorf("adding the admission server: %w", err)
	}
	return s, nil
}

// NeedLeaderElection tells the manager that every replica answers.
func (s *Server) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (s *Server) Start(ctx context.Context) error { return s.Run(ctx) }

// Ready is closed when the API server asks this Server.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run listens, registers the webhooks, and answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	certificate := s.options.Certificate
	if certificate == nil {
		if certificate, err = NewCertificate(s.hosts(listener)...); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	pair, err := tls.X509KeyPair(certificate.Certificate, certificate.Key)
	if err != nil {
		return errors.Join(fmt.Errorf("loading the certificate of the webhooks: %w", err), listener.Close())
	}
	server := &http.Server{
		Handler:           s.Handler(),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: shutdownTime,
		// Probes of the port are not worth a line each.
		ErrorLog: slog.NewLogLogger(s.options.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	if err := s.register(ctx, certificate.CA, listener.Addr()); err != nil {
		return errors.Join(err, server.Close(), ignoreClosed(<-served))
	}
	s.options.Logger.Info("admission webhooks are registered", "address", listener.Addr().String())
	close(s.ready)
	select {
	case err := <-served:
		return fmt.Errorf("serving webhooks: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("stopping webhooks: %w", err), server.Close())
	}
	return ignoreClosed(<-served)
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.options.Listener != nil {
		return s.options.Listener, nil
	}
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for webhooks: %w", err)
	}
	return listener, nil
}

// hosts are the names that the API server may use.
func (s *Server) hosts(listener net.Listener) []string {
	if svc := s.options.Service; svc != nil {
		name := svc.Name + "." + svc.Namespace
		return []string{svc.Name, name, name + ".svc", name + ".svc.cluster.local"}
	}
	if address, ok := listener.Addr().(*net.TCPAddr); ok && !address.IP.IsUnspecified() {
		return []string{address.IP.String(), "localhost"}
	}
	return []string{"127.0.0.1", "localhost"}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
