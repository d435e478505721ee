package engine

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of HTTP/2 connections of clients.
const (
	// maxStreams bounds the requests of one connection; clients queue or open another.
	maxStreams = 250
	// writeStall ends a connection on which the client takes no byte although there are some to send.
	writeStall = time.Minute
)

// Options of NewServer.
type Options struct {
	// Base ends all exchanges when it ends.
	Base context.Context //nolint:containedctx // the life of the server's requests
	// Handler makes a handler. It serves one request at a time and many one after the other.
	Handler func() Handler
	// Log is required.
	Log *slog.Logger
}

// Server accepts connections and hands their requests to handlers.
type Server struct {
	opts     Options
	handlers sync.Pool
	h2       *http.Server
	stop     atomic.Bool
	// over is set when Base has ended.
	over atomic.Bool
	// clock is the text of Date fields and the second that it was made for.
	clock atomic.Pointer[clock]

	// mu guards the rest.
	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	// upgraded are connections that Shutdown does not wait for.
	upgraded map[*conn]struct{}
	// watching is set while a goroutine looks after the connections.
	watching bool
	// empty is closed when the last connection has gone; nil while nobody waits.
	empty chan struct{}
}

// NewServer returns a server.
func NewServer(opts Options) *Server {
	s := &Server{opts: opts, listeners: make(map[net.Listener]struct{}), conns: make(map[*conn]struct{}), upgraded: make(map[*conn]struct{})}
	s.handlers.New = func() any { return opts.Handler() }
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s.h2 = &http.Server{
		Handler:                      http.HandlerFunc(s.serveStream),
		BaseContext:                  func(net.Listener) context.Context { return opts.Base },
		ReadHeaderTimeout:            headTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHead,
		Protocols:                    protocols,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: writeStall},
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
	}
	context.AfterFunc(opts.Base, func() {
		s.over.Store(true)
		s.cancelAll(context.Cause(opts.Base))
	})
	return s
}

func (s *Server) handler() Handler {
	h, _ := s.handlers.Get().(Handler)
	return h
}

func (s *Server) release(h Handler) { s.handlers.Put(h) }

func (s *Server) stopping() bool { return s.stop.Load() }

// Serve accepts connections until Shutdown or Close, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	return s.accept(l, func(c net.Conn) {
		if k := s.admit(c); k != nil {
			k.serve()
		}
	})
}

// accept starts a goroutine for each connection.
func (s *Server) accept(l net.Listener, serve func(net.Conn)) error {
	s.mu.Lock()
	if s.stopping() {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			go serve(c)
		case s.stopping():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Out of file descriptors, most likely: connections that end make room.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.opts.Log.Warn("accepting", "error", err, "pause", pause)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-s.opts.Base.Done():
				timer.Stop()
				return nil
			}
		}
	}
}

// ServeConn serves a connection that was accepted elsewhere and returns when the server, or whoever has taken the connection over
// from it, has closed it.
func (s *Server) ServeConn(c net.Conn) {
	if k := s.admit(c); k != nil {
		k.serve()
	}
}

// admit takes a connection in, or closes it when the server has stopped.
func (s *Server) admit(c net.Conn) *conn {
	return s.admitConn(newConn(s, c))
}

func (s *Server) admitConn(k *conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping() {
		_ = k.socket.Close()
		return nil
	}
	s.conns[k] = struct{}{}
	if !s.watching {
		s.watching = true
		go s.watch()
	}
	return k
}

// forget is called when a connection has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	delete(s.upgraded, c)
	s.signalEmpty()
}

// upgrade is called when a connection no longer carries requests.
func (s *Server) upgrade(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.upgraded[c] = struct{}{}
	s.signalEmpty()
}

func (s *Server) signalEmpty() {
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Shutdown stops accepting, tells clients to go elsewhere and waits for the requests in flight, upgraded connections apart.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stop.Store(true)
	for l := range s.listeners {
		_ = l.Close()
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.signalEmpty()
	s.mu.Unlock()
	h2 := make(chan error, 1)
	go func() { h2 <- s.h2.Shutdown(ctx) }()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.closeIdle()
		select {
		case <-empty:
			return <-h2
		case <-ctx.Done():
			<-h2
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Close ends all connections.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop.Store(true)
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.socket.Close() // that of TLS would say good-bye, and wait for a client that does not read
	}
	for c := range s.upgraded {
		_ = c.socket.Close()
	}
	return s.h2.Close()
}
