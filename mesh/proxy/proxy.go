package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-dev/weft/mesh/certificate"
	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/filter/accesslog"
	"github.com/weft-dev/weft/mesh/filter/deadline"
	"github.com/weft-dev/weft/mesh/filter/dispatch"
	"github.com/weft-dev/weft/mesh/filter/forwarded"
	"github.com/weft-dev/weft/mesh/filter/knative"
	"github.com/weft-dev/weft/mesh/filter/measure"
	"github.com/weft-dev/weft/mesh/filter/trace"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// DefaultDrainTimeout bounds how long requests may go on after the proxy has been told to stop.
const DefaultDrainTimeout = 30 * time.Second

// Options of New.
type Options struct {
	// Metrics and Reporter are required; the caller runs the reporter.
	Metrics  *telemetry.Metrics
	Reporter *telemetry.Reporter
	// DrainTimeout bounds how long requests may go on after the end of Run's context; zero means DefaultDrainTimeout.
	DrainTimeout time.Duration
	// AccessLog receives the lines of the access log while the configuration asks for one; nil discards them.
	AccessLog io.Writer
	// Log is required.
	Log *slog.Logger
}

// Proxy carries requests. Make it with New, give it configuration by Apply and call Run.
type Proxy struct {
	log       *slog.Logger
	handler   filter.Handler
	backends  *backends
	drain     time.Duration
	accessLog *accesslog.Log
	// certificates are those of the HTTPS listeners.
	certificates *certificate.Table

	// hosts is read by every request without a lock.
	hosts atomic.Pointer[hostTable]

	noHost, noRule, noBackend prometheus.Counter

	draining atomic.Bool
	synced   atomic.Bool
	// requests counts those in flight, upgraded connections included.
	requests inFlight
	// abort ends the context of all requests.
	abort     context.CancelFunc
	listeners *listeners

	// mu guards the rest and serialises Apply.
	mu            sync.Mutex
	claims        *claims
	routes        map[string]*installed
	defined       map[string]*backend
	withEndpoints map[string]*backend
	resources     map[string]map[string]config.Resource
}

// New returns a proxy without configuration.
func New(opts Options) *Proxy {
	p := &Proxy{
		log: opts.Log, drain: opts.DrainTimeout, backends: newBackends(opts.Metrics, opts.Reporter),
		noHost: opts.Metrics.Unrouted("host"), noRule: opts.Metrics.Unrouted("rule"), noBackend: opts.Metrics.Unrouted("backend"),
		certificates: certificate.NewTable(),
		claims:       newClaims(), routes: make(map[string]*installed), defined: make(map[string]*backend),
		withEndpoints: make(map[string]*backend), resources: make(map[string]map[string]config.Resource),
	}
	if p.drain == 0 {
		p.drain = DefaultDrainTimeout
	}
	if opts.AccessLog == nil {
		opts.AccessLog = io.Discard
	}
	p.accessLog = accesslog.NewLog(opts.AccessLog)
	p.hosts.Store(newHostTable())
	base, abort := context.WithCancel(context.Background())
	p.abort = abort
	p.listeners = newListeners(base, p)
	p.handler = p.filters()
	return p
}

// filters is the order of the filters, last first.
func (p *Proxy) filters() filter.Handler {
	var h filter.Handler = dispatch.New() // takes a place at an instance and sends
	h = trace.New(h)                      // after all that can refuse: only what is sent needs the headers
	h = forwarded.New(h)
	h = deadline.New(h)               // before dispatch: waiting for an instance counts
	h = measure.New(h, p.log)         // before deadline: a request out of time is counted as such
	h = knative.New(h, p.Draining)    // before measure: probes are no load and must not wake anything
	h = accesslog.New(h, p.accessLog) // first: it tells what the client got, from whomever
	return h
}

// Run serves until ctx ends, then stops accepting, lets requests end within the drain time, and returns.
func (p *Proxy) Run(ctx context.Context) error {
	p.listeners.retry(ctx)
	p.Stop()
	return nil
}

// Stop stops accepting and returns when all requests have ended or the drain time is over. Requests that are left then are cut.
func (p *Proxy) Stop() {
	p.draining.Store(true)
	limit := time.AfterFunc(p.drain, p.abort)
	defer limit.Stop()
	p.listeners.close()
	p.requests.wait()
	p.abort()
}

// SetSynced tells that the proxy has the control plane's configuration, so that it is ready.
func (p *Proxy) SetSynced() { p.synced.Store(true) }

// Ready reports whether the proxy has its configuration and is not about to stop.
func (p *Proxy) Ready() bool { return p.synced.Load() && !p.draining.Load() }

// Draining reports whether the proxy is about to stop.
func (p *Proxy) Draining() bool { return p.draining.Load() }

// WaitDrained keeps new requests from the pod with address ip and returns when none is in flight there, or with ctx's error. The pod
// stays drained, unless the configuration still has it as a full member some time later. An unknown pod has no requests.
func (p *Proxy) WaitDrained(ctx context.Context, ip netip.Addr) error {
	if err := p.backends.drain(ctx, ip); err != nil {
		return fmt.Errorf("waiting for requests at %s: %w", ip, err)
	}
	return nil
}

// ServeLocal serves a pod's connection that was accepted elsewhere, as the cluster-local listener does, and returns when it is closed.
func (p *Proxy) ServeLocal(conn net.Conn) { p.listeners.handed.server.ServeConn(conn) }

// Certificates collects the metrics of the certificates in use.
func (p *Proxy) Certificates() prometheus.Collector { return p.certificates }

// Addresses are the addresses of the open listeners by name.
func (p *Proxy) Addresses() map[string]string { return p.listeners.addresses() }

// session serves the requests of one connection after the other.
type session struct {
	filter.Exchange

	proxy    *Proxy
	listener *listener
}

var _ engine.Handler = (*session)(nil)

// Handle implements engine.Handler.
func (s *session) Handle() error {
	p := s.proxy
	p.requests.add()
	defer p.requests.done()
	x := &s.Exchange
	x.Backend, x.Settings, x.Endpoint = nil, nil, nil
	return p.route(config.Visibility(s.listener.visibility.Load()), x)
}

// route finds the backend of a request and hands it to the filters.
func (p *Proxy) route(visibility config.Visibility, x *filter.Exchange) error {
	if x.Request.Method == http.MethodConnect {
		return filter.Answer(x, filter.Refuse(http.StatusMethodNotAllowed, "CONNECT is not supported"))
	}
	host := p.hosts.Load().lookup(visibility, x.Request.Host)
	if host == nil {
		p.noHost.Inc()
		return filter.Answer(x, filter.Refuse(http.StatusNotFound, "no service at this host"))
	}
	if host.redirects(x) {
		return redirect(x, host.httpsPort)
	}
	chosen := host.find(&x.Request)
	if chosen == nil {
		p.noRule.Inc()
		return filter.Answer(x, filter.Refuse(http.StatusNotFound, "no service at this path"))
	}
	to := chosen.choose()
	if to != nil {
		x.Backend, x.Settings = &to.backend.Backend, to.backend.settings.Load()
	}
	if x.Settings == nil {
		p.noBackend.Inc()
		return filter.Answer(x, &filter.Error{Status: http.StatusServiceUnavailable, Text: "no backend for this route", RetryAfter: 1})
	}
	apply(chosen.set, &x.Request)
	apply(to.set, &x.Request)
	return p.handler.Handle(x)
}

// inFlight counts requests and can wait for their end. Unlike a sync.WaitGroup it may grow from zero while somebody waits.
type inFlight struct {
	n atomic.Int64
	// mu guards zero.
	mu   sync.Mutex
	zero chan struct{}
}

func (f *inFlight) add() { f.n.Add(1) }

func (f *inFlight) done() {
	if f.n.Add(-1) != 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.zero != nil {
		close(f.zero)
		f.zero = nil
	}
}

func (f *inFlight) wait() {
	for {
		f.mu.Lock()
		if f.n.Load() == 0 {
			f.mu.Unlock()
			return
		}
		if f.zero == nil {
			f.zero = make(chan struct{})
		}
		zero := f.zero
		f.mu.Unlock()
		<-zero
	}
}
