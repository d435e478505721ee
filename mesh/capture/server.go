package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Defaults of Options.
const (
	DefaultDialTimeout    = 5 * time.Second
	DefaultDrainTimeout   = 30 * time.Second
	DefaultUDPIdleTimeout = 30 * time.Second
	DefaultMaxConnections = 32768
	DefaultMaxFlows       = 8192
	DefaultDrainPort      = 8022
)

// Connection is what is known of a captured connection or flow before a byte of it is read.
type Connection struct {
	// Source is the pod, or a host process when the address is a loopback one.
	Source netip.AddrPort
	// Destination is what the source dialled: a cluster IP and a port.
	Destination netip.AddrPort
	// Service is "<namespace>/<name>" of the Service that has the destination, and Backend where it leads.
	Service, Backend string
}

// Handler takes a captured TCP connection over.
type Handler interface {
	// ServeTCP owns conn and returns when it is done with it. It is called concurrently, one goroutine per connection. ctx ends
	// when the server has no more time to drain.
	ServeTCP(ctx context.Context, conn *net.TCPConn, c Connection)
}

// Options of a Server.
type Options struct {
	// Listen is the address that Install redirects to: the instance's gateway and a port. Required for Run.
	Listen netip.AddrPort
	// Handler takes connections to cluster IPs; the server's own ServeTCP when nil.
	Handler Handler
	// LocalAddress is the proxy's cluster-local HTTP listener. Connections whose endpoint it is go to ServeLocal, with no second socket
	// in between. ServeLocal owns the connection and returns when it is done with it.
	LocalAddress netip.AddrPort
	ServeLocal   func(net.Conn)
	// Drain returns when no request is in flight to a pod, or with the error of ctx. It answers GET /wait-for-drain on the
	// DrainPort (8022 when zero) of the pod's address, which is dialled as the preStop hook of user containers.
	Drain     func(ctx context.Context, pod netip.Addr) error
	DrainPort uint16
	// DialTimeout bounds one attempt to reach an endpoint, DrainTimeout what connections get after the end of Run's context, and
	// UDPIdleTimeout the silence after which a UDP flow is forgotten. The defaults apply when zero; a negative DrainTimeout is none.
	DialTimeout, DrainTimeout, UDPIdleTimeout time.Duration
	// MaxConnections and MaxFlows bound TCP connections and UDP flows. Beyond them connections are reset and datagrams dropped.
	MaxConnections, MaxFlows int
	// Logger is silent when nil.
	Logger *slog.Logger
}

func (o *Options) complete() {
	fill(&o.DialTimeout, DefaultDialTimeout)
	fill(&o.DrainTimeout, DefaultDrainTimeout)
	fill(&o.UDPIdleTimeout, DefaultUDPIdleTimeout)
	fill(&o.MaxConnections, DefaultMaxConnections)
	fill(&o.MaxFlows, DefaultMaxFlows)
	fill(&o.DrainPort, DefaultDrainPort)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Counts of a Server since its start.
type Counts struct {
	// Connections and Flows are open now.
	Connections, Flows int64
	// Refused counts connections that were reset and datagrams that were dropped: unknown destination, no endpoint that answers,
	// or too many at a time.
	Refused uint64
}

// Server is the data-plane half. Apply, Counts and ServeTCP may be called concurrently, before and during Run.
type Server struct {
	opts    Options
	table   *table
	dialer  net.Dialer
	drainer *drainer

	connections, flows atomic.Int64
	refused            atomic.Uint64

	// udpChanged holds a token while the set of UDP ports may differ from the open sockets.
	udpChanged chan struct{}
}

var _ Handler = (*Server)(nil)

// New returns a Server without Services.
func New(opts Options) *Server {
	opts.complete()
	s := &Server{
		opts:       opts,
		table:      newTable(),
		dialer:     net.Dialer{Timeout: opts.DialTimeout, Control: Control},
		udpChanged: make(chan struct{}, 1),
	}
	if s.opts.Handler == nil {
		s.opts.Handler = s
	}
	s.drainer = newDrainer(opts.Drain)
	return s
}

// Counts of now.
func (s *Server) Counts() Counts {
	return Counts{Connections: s.connections.Load(), Flows: s.flows.Load(), Refused: s.refused.Load()}
}

// Run listens until ctx ends, then lets connections finish for the drain timeout, and returns when all are closed.
func (s *Server) Run(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", s.opts.Listen.String())
	if err != nil {
		return fmt.Errorf("listening for captured connections: %w", err)
	}
	listener, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listening for captured connections: %T is no TCP listener", l)
	}
	// Connections outlive ctx by the drain timeout, and the flows of UDP end with it.
	live, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()

	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	group.Go(func() error { return s.accept(ctx, live, kill, listener) })
	group.Go(func() error { return s.serveUDP(ctx) })
	group.Go(func() error { return s.drainer.run(live) })
	return group.Wait()
}

// accept starts a goroutine per connection and waits for all of them in the end.
func (s *Server) accept(ctx, live context.Context, kill func(), listener *net.TCPListener) error {
	defer kill()
	var wg sync.WaitGroup
	for {
		conn, err := listener.AcceptTCP()
		if ctx.Err() != nil {
			if err == nil {
				reset(conn)
			}
			break
		}
		if err != nil {
			if !temporary(err) {
				kill()
				wg.Wait()
				return fmt.Errorf("accepting captured connections: %w", err)
			}
			s.opts.Logger.Error("captured connection lost", "error", err)
			if !pause(ctx, acceptPause) {
				break
			}
			continue
		}
		if s.connections.Add(1) > int64(s.opts.MaxConnections) {
			s.connections.Add(-1)
			s.refuse(conn)
			continue
		}
		wg.Go(func() {
			defer s.connections.Add(-1)
			s.serve(live, conn)
		})
	}
	if s.opts.DrainTimeout > 0 {
		timer := time.AfterFunc(s.opts.DrainTimeout, kill)
		defer timer.Stop()
	} else {
		kill()
	}
	wg.Wait()
	return nil
}

// acceptPause keeps a process without free file descriptors from spinning.
const acceptPause = 5 * time.Millisecond

// temporary says whether accepting can succeed later: everything but a closed listener.
func temporary(err error) bool { return !errors.Is(err, net.ErrClosed) }

// pause reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
