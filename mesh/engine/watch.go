package engine

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Time limits of client connections. One goroutine keeps them for all connections, so that none of them costs a timer per request.
const (
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	// watchInterval is how often connections are looked at, and watchAfter how long a request takes at least before its client is
	// looked for.
	watchInterval = 500 * time.Millisecond
	watchAfter    = 250 * time.Millisecond
)

// watch looks after the connections as long as there are any.
func (s *Server) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for now := range ticker.C {
		if !s.inspectAll(now) {
			return
		}
	}
}

// inspectAll reports whether there are connections.
func (s *Server) inspectAll(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.inspect(now)
	}
	s.watching = len(s.conns) > 0
	return s.watching
}

// inspect makes a connection that is out of time end, which its own goroutine then closes: closing one of TLS waits. It also ends the exchange of a client that has left. An event would be nicer for that, but the
// runtime's poller has none for a peer that has closed behind data that nobody has read yet.
func (c *conn) inspect(now time.Time) {
	waited := now.Sub(time.Unix(0, c.since.Load()))
	switch phase(c.phase.Load()) {
	case phaseIdle:
		if waited > idleTimeout {
			c.interrupt()
		}
	case phaseHead:
		if waited > headTimeout {
			c.interrupt()
		}
	case phaseActive:
		stalled := false
		if began := c.writing.Load(); began != 0 && now.Sub(time.Unix(0, began)) > writeStall {
			stalled = true
			c.interrupt()
		}
		x := c.x.Load()
		if x == nil || waited < watchAfter {
			return
		}
		// In this order: when the exchange is still this connection's afterwards, the generation was that of its request.
		generation := x.current()
		if c.x.Load() != x {
			return
		}
		if stalled || c.raw != nil && closed(c.raw) {
			x.cancelGeneration(generation, ErrClientGone)
		}
	}
}

// closed reports whether the peer has closed its side.
func closed(raw syscall.RawConn) bool {
	events := int16(0)
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, 0); err == nil && n == 1 {
			events = fds[0].Revents
		}
	})
	return err != nil || events&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// newConnGrace is how long a connection may be silent when the server stops: its request may be on its way.
const newConnGrace = 100 * time.Millisecond

// closeIdle ends the connections that carry no request.
func (s *Server) closeIdle() {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if phase(c.phase.Load()) == phaseIdle && now.Sub(time.Unix(0, c.since.Load())) > newConnGrace {
			c.interruptRead() // a request that has come at this very moment is still served
		}
	}
}

// cancelAll gives up every exchange.
func (s *Server) cancelAll(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if x := c.x.Load(); x != nil {
			x.Cancel(cause)
		}
	}
	for c := range s.upgraded {
		if x := c.x.Load(); x != nil {
			x.Cancel(cause)
		}
	}
}
