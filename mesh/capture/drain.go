package capture

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// headerTimeout bounds the time in which a drain request must have been sent.
const headerTimeout = 5 * time.Second

// drainer answers the preStop hooks of pods, which were dialled at the pods' own addresses.
type drainer struct {
	drain func(ctx context.Context, pod netip.Addr) error
	conns chan net.Conn
}

func newDrainer(drain func(ctx context.Context, pod netip.Addr) error) *drainer {
	return &drainer{drain: drain, conns: make(chan net.Conn)}
}

// drainConn is a connection that knows the pod it was meant for, and when it is done.
type drainConn struct {
	net.Conn
	pod    netip.Addr
	closed func()
}

func (c *drainConn) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}

// serve hands a connection to the HTTP server and waits until that is done with it.
func (d *drainer) serve(ctx context.Context, conn *net.TCPConn, pod netip.Addr) {
	done := make(chan struct{})
	wrapped := &drainConn{Conn: conn, pod: pod, closed: sync.OnceFunc(func() { close(done) })}
	select {
	case <-ctx.Done():
		reset(conn)
		return
	case d.conns <- wrapped:
	}
	<-done
}

type podKey struct{}

// run serves until ctx ends.
func (d *drainer) run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /wait-for-drain", d.wait)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if c, ok := conn.(*drainConn); ok {
				return context.WithValue(ctx, podKey{}, c.pod)
			}
			return ctx
		},
	}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(&handed{ctx: ctx, conns: d.conns}); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return err
	}
	return nil
}

// wait answers when the pod has no request in flight.
func (d *drainer) wait(w http.ResponseWriter, r *http.Request) {
	pod, ok := r.Context().Value(podKey{}).(netip.Addr)
	if !ok {
		http.Error(w, "no pod", http.StatusBadRequest)
		return
	}
	if err := d.drain(r.Context(), pod); err != nil {
		http.Error(w, "requests are still in flight", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// handed is a listener of connections that were accepted elsewhere.
type handed struct {
	ctx   context.Context //nolint:containedctx // a net.Listener has no other way to learn of the end
	conns <-chan net.Conn
}

func (l *handed) Accept() (net.Conn, error) {
	select {
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	case conn := <-l.conns:
		return conn, nil
	}
}

func (l *handed) Close() error   { return nil }
func (l *handed) Addr() net.Addr { return &net.TCPAddr{} }
