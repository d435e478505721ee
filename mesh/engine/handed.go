package engine

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// ServeConn serves a connection that was accepted elsewhere and returns when the server, or whoever has taken the connection over
// from it, has closed it.
func (s *Server) ServeConn(conn net.Conn) {
	done := make(chan struct{})
	handed := &handedConn{Conn: conn, closed: sync.OnceFunc(func() { close(done) })}
	// Serve returns when the listener has no more connections and leaves the ones it gave to their goroutines.
	_ = s.Serve(&singleListener{conn: handed})
	<-done
}

// handedConn tells when it is closed.
type handedConn struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *handedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn, where the connection does.
func (c *handedConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite ends one direction, where the connection can.
func (c *handedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// singleListener is a listener that one connection comes from.
type singleListener struct {
	// mu guards conn.
	mu   sync.Mutex
	conn net.Conn
}

// Accept implements net.Listener.
func (l *singleListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

// Close implements net.Listener. A server that has stopped never accepts, and the connection ends here.
func (l *singleListener) Close() error {
	conn, err := l.Accept()
	if err != nil {
		return nil //nolint:nilerr // it has been accepted, which is the usual course
	}
	return conn.Close()
}

// Addr implements net.Listener.
func (l *singleListener) Addr() net.Addr { return &net.TCPAddr{} }
