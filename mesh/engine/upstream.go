package engine

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

// Protocol is what an instance speaks.
type Protocol int

// The protocols.
const (
	HTTP1 Protocol = iota
	// H2C is HTTP/2 with prior knowledge over plain TCP.
	H2C
)

const (
	// dialTimeout is generous for the same machine and short enough to try another instance within a client's patience.
	dialTimeout = 3 * time.Second
	// upstreamIdle is below the keep-alive timeout of common servers (Node.js and uvicorn close after 5 s), because a request
	// sent into a closing connection is the classic cause of a stray 502.
	upstreamIdle = 4 * time.Second
	maxIdleConns = 512
	maxResponse  = 256 << 10
	// pingAfter and pingTimeout find out that the peer of a quiet HTTP/2 connection is gone.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// Upstream holds the connections to one instance. It may be used concurrently.
type Upstream struct {
	address string

	// mu guards the rest.
	mu sync.Mutex
	// closed is set when no connection is to be kept any more.
	closed bool
	// idle are the connections that carry nothing, the one that was used last at the end.
	idle []*instanceConn
	// sweeper closes those that have been idle for too long. It is set while there are any.
	sweeper *time.Timer
	// h2 is made when it is needed first.
	h2 *http.Transport
}

// NewUpstream returns the upstream at "ip:port". It dials on demand.
func NewUpstream(address string) *Upstream { return &Upstream{address: address} }

// Close closes idle connections at once and others when they are no longer in use. Requests that are on their way may still use the
// upstream.
func (u *Upstream) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, c := range u.idle {
		c.close()
	}
	clear(u.idle)
	u.idle = u.idle[:0]
	if u.h2 != nil {
		u.h2.CloseIdleConnections()
	}
	return nil
}

// instanceConn is a connection of HTTP/1 to an instance.
type instanceConn struct {
	net    net.Conn
	raw    syscall.RawConn
	reader http1.Reader
	body   http1.Body
	// head is what the response's strings lie in.
	head []byte
	// since is when the connection became idle.
	since time.Time

	// look is peek, made once, and silent its result.
	look   func(fd uintptr) bool
	silent bool
	peeked byte
}

// get returns a connection that is ready for a request, an idle one if there is one.
func (u *Upstream) get(x *Exchange) (*instanceConn, error) {
	for {
		c := u.pop()
		if c == nil {
			return u.dial(x)
		}
		if c.usable() {
			c.reader.Lend(lendHead()[:])
			return c, nil
		}
		c.close()
	}
}

func (u *Upstream) pop() *instanceConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := len(u.idle)
	if n == 0 {
		return nil
	}
	c := u.idle[n-1]
	u.idle[n-1] = nil
	u.idle = u.idle[:n-1]
	return c
}

// put keeps a connection for another request.
func (u *Upstream) put(c *instanceConn) {
	if len(c.reader.Buffered()) > 0 {
		c.close() // more than the response that was asked for
		return
	}
	giveBack(c.reader.Return())
	c.since = time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || len(u.idle) >= maxIdleConns {
		c.close()
		return
	}
	u.idle = append(u.idle, c)
	if u.sweeper == nil {
		u.sweeper = time.AfterFunc(upstreamIdle, u.sweep)
	}
}

// sweep closes what has been idle for too long.
func (u *Upstream) sweep() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	stale := 0
	for stale < len(u.idle) && now.Sub(u.idle[stale].since) >= upstreamIdle {
		u.idle[stale].close()
		stale++
	}
	kept := copy(u.idle, u.idle[stale:])
	clear(u.idle[kept:])
	u.idle = u.idle[:kept]
	if kept == 0 {
		u.sweeper = nil
		return
	}
	u.sweeper.Reset(max(upstreamIdle-now.Sub(u.idle[0].since), time.Millisecond))
}

func (u *Upstream) dial(x *Exchange) (*instanceConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	c, err := dialer.DialContext(x.Context(), "tcp", u.address)
	if err != nil {
		if cause := x.Cause(); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	conn := &instanceConn{net: c}
	if socket, ok := c.(syscall.Conn); ok {
		if conn.raw, err = socket.SyscallConn(); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrNotConnected, err), c.Close())
		}
	}
	conn.look = conn.peek
	conn.reader.Reset(c)
	conn.reader.Lend(lendHead()[:])
	return conn, nil
}

// usable reports whether an idle connection is still open and has sent nothing: what an instance says without being asked would be
// taken for the response to the next request.
func (c *instanceConn) usable() bool {
	if time.Since(c.since) >= upstreamIdle {
		return false
	}
	return c.raw.Read(c.look) == nil && c.silent
}

// peek looks without waiting. It is recvfrom(2) by its number because package unix allocates an address that nobody asks for.
func (c *instanceConn) peek(fd uintptr) bool {
	_, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&c.peeked)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // as above
	c.silent = errno == unix.EAGAIN
	return true
}

// abort makes everything that waits for the connection fail. It may be called concurrently.
func (c *instanceConn) abort() { _ = c.net.SetDeadline(past) }

func (c *instanceConn) close() {
	_ = c.net.Close()
	if c.reader.Lent() {
		giveBack(c.reader.Return())
	}
}

// Next, Ready and trailers implement instanceBody.
func (c *instanceConn) next() ([]byte, error) { return c.body.Next(copyBuffer) }

func (c *instanceConn) ready() bool { return c.body.Ready() }

func (c *instanceConn) trailers() *message.Header { return &c.body.Trailers }

// more gives a long body a larger buffer.
func (c *instanceConn) more() {
	if left := c.body.Left(); (left < 0 || left > headBuffer) && c.reader.Size() == headBuffer {
		old := c.reader.Exchange(lendCopy()[:])
		giveBack(old)
	}
}
