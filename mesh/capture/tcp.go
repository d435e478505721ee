package capture

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// attempts bounds how many endpoints are tried for one connection.
const attempts = 3

// serve finds out where a connection wanted to go.
func (s *Server) serve(ctx context.Context, conn *net.TCPConn) {
	destination, err := originalDestination(conn)
	if err != nil {
		// Someone dialled the listener itself.
		s.refuse(conn)
		return
	}
	source := addrPort(conn.RemoteAddr())
	if c, ok := s.table.connection(source, destination); ok {
		s.opts.Handler.ServeTCP(ctx, conn, c)
		return
	}
	if destination.Port() == s.opts.DrainPort && s.opts.Drain != nil {
		s.drainer.serve(ctx, conn, destination.Addr())
		return
	}
	s.refuse(conn)
}

// ServeTCP takes a connection to a ready endpoint of its Service: the one with the fewest connections, another if that does not
// answer. The connection is reset when there is none, which is what a client sees that dials a closed port.
func (s *Server) ServeTCP(ctx context.Context, conn *net.TCPConn, c Connection) {
	if s.opts.ServeLocal != nil && s.table.leadsTo(c.Backend, s.opts.LocalAddress) {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		s.opts.ServeLocal(conn)
		return
	}
	upstream, ep, err := s.dial(ctx, c)
	if err != nil {
		s.opts.Logger.Debug("captured connection refused", "service", c.Service, "source", c.Source, "destination", c.Destination, "error", err)
		s.refuse(conn)
		return
	}
	defer ep.active.Add(-1)
	carry(ctx, conn, upstream)
}

// dial connects to an endpoint. The caller gives its active count back.
func (s *Server) dial(ctx context.Context, c Connection) (*net.TCPConn, *endpoint, error) {
	var tried [attempts]netip.AddrPort
	var last error
	for i := range tried {
		ep := s.table.choose(c.Backend, tried[:i])
		if ep == nil {
			break
		}
		tried[i] = ep.address
		conn, err := s.dialer.DialContext(ctx, "tcp4", ep.address.String())
		if err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				return tcp, ep, nil
			}
			_ = conn.Close()
		}
		ep.active.Add(-1)
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		return nil, nil, fmt.Errorf("connecting to %s: no endpoint", c.Backend)
	}
	return nil, nil, fmt.Errorf("connecting to %s: %w", c.Backend, last)
}

// carry copies both ways until both ends have finished, and passes the end of each direction on. Copying from one TCP connection to
// another is splice(2) in the standard library: no byte of it enters this process.
func carry(ctx context.Context, a, b *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { reset(a); reset(b) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { pipe(a, b) })
	pipe(b, a)
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

func pipe(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		// One end broke: the other must not take what it has for complete.
		reset(dst)
		reset(src)
		return
	}
	_ = dst.CloseWrite()
}

func (s *Server) refuse(conn *net.TCPConn) {
	s.refused.Add(1)
	reset(conn)
}

// reset closes a connection so that the peer sees an error and not an end.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

func addrPort(addr net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := addr.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
