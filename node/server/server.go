package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/pod"
)

// The client of kube-apiserver by the convention of cluster installers, and the organisation of administrators.
const (
	apiserverClient = "kube-apiserver-kubelet-client"
	administrators  = "system:masters"
)

// idleTimeout ends streams on which nothing happens, as kubelet's default does; createTimeout bounds the wait for the streams of
// a request.
const (
	idleTimeout   = 4 * time.Hour
	createTimeout = 30 * time.Second
	headerTimeout = 10 * time.Second
	closeTimeout  = time.Second
)

// Pods are the pods of this machine. Its methods may be called concurrently.
type Pods interface {
	// Pod returns a pod at this moment; ok is false for one that this machine does not run.
	Pod(namespace, name string) (view *pod.View, ok bool)
	// List returns all pods.
	List() []*v1.Pod
}

// Options of a Server.
type Options struct {
	Pods    Pods
	Runtime container.Runtime
	// Stats may be nil; then what the node and its pods use is not served.
	Stats Stats
	// TLS has the server's certificate and in ClientCAs the authorities of clients. A client certificate is always wanted.
	TLS *tls.Config
	// Clients says who may use the API; nil means kube-apiserver and administrators.
	Clients func(*x509.Certificate) bool
	// Address and Port to listen on; port zero takes a free one.
	Address string
	Port    int
	Log     *slog.Logger
}

// Server serves the kubelet API.
type Server struct {
	o       Options
	handler http.Handler
}

// New returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	if o.TLS == nil || o.TLS.ClientCAs == nil {
		return nil, errors.New("the kubelet API needs a certificate and the authorities of its clients")
	}
	if o.Clients == nil {
		o.Clients = fromAPIServer
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /runningpods/", s.pods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, path := range []string{"/exec/{namespace}/{pod}/{container}", "/exec/{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc(path, s.exec)
	}
	for _, path := range []string{"/attach/{namespace}/{pod}/{container}", "/attach/{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc(path, s.attach)
	}
	for _, path := range []string{"/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}"} {
		mux.HandleFunc(path, s.portForward)
	}
	if o.Stats != nil {
		mux.HandleFunc("GET /stats/summary", s.summary)
		mux.HandleFunc("GET /metrics/resource", s.resourceMetrics)
	}
	s.handler = s.authorized(mux)
	return s, nil
}

func fromAPIServer(c *x509.Certificate) bool {
	return c.Subject.CommonName == apiserverClient || slices.Contains(c.Subject.Organization, administrators)
}

// authorized refuses clients that are not the API server.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || !s.o.Clients(r.TLS.VerifiedChains[0][0]) {
			http.Error(w, "Forbidden", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Run serves until ctx ends; then streams are cut.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(s.o.Address, strconv.Itoa(s.o.Port)))
	if err != nil {
		return fmt.Errorf("listening for the kubelet API: %w", err)
	}
	return s.Serve(ctx, l)
}

// Serve is Run on a listener, which it closes.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	config := s.o.TLS.Clone()
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler: s.handler, TLSConfig: config, ReadHeaderTimeout: headerTimeout,
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving the kubelet API: %w", err)
	case <-ctx.Done():
	}
	cancel()
	shut, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer stop()
	if err := srv.Shutdown(shut); err != nil {
		_ = srv.Close()
	}
	<-failed
	return nil
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	for _, p := range s.o.Pods.List() {
		list.Items = append(list.Items, *p)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}
