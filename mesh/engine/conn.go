package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

// Limits of a client's connection.
const (
	maxHead = 64 << 10
	// lingerTime is how long a client that still sends a body after the whole response gets to read that response before the
	// connection is closed under it, and lingerBytes how much of the body is read meanwhile.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
	// flushAt is how much of a response is held back at most until more of it is there.
	flushAt = 16 << 10
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// phase is what a connection waits for; the janitor judges by it.
type phase int32

// The phases.
const (
	phaseIdle   phase = iota // the next request
	phaseHead                // the rest of a request's head
	phaseActive              // whatever the request takes
)

// conn is a client's connection of HTTP/1.
type conn struct {
	server *Server
	net    net.Conn
	// socket is what is below TLS, or net itself; closing it never waits. raw is its file descriptor; nil if there is none.
	socket net.Conn
	raw    syscall.RawConn
	secure bool
	// remote is the client's address without port, remoteAddr with it.
	remote, remoteAddr string
	reader             http1.Reader

	// x is the exchange of the request that is being served, nil between requests. The janitor reads it.
	x atomic.Pointer[Exchange]
	// phase and since tell the janitor what the connection waits for, and since when in Unix nanoseconds.
	phase atomic.Int32
	since atomic.Int64
	// writing is when a write began that has not ended, in Unix nanoseconds; zero for none.
	writing atomic.Int64

	body requestBody
	// out is what of the response has not been written.
	out []byte
	// framing is that of the response's body, and ending what comes after it.
	framing http1.Framing
	ending  http1.Ending
	// taken is set when the connection belongs to somebody else: it was upgraded or handed over.
	taken bool
	// spoiled is set when reads and writes have been made to fail for good.
	spoiled atomic.Bool
	// fill is tryFill, made once; nil for a connection that is not the socket itself.
	fill func(fd uintptr) bool
	// fillErr is what fill found in place of bytes.
	fillErr error
}

var _ client = (*conn)(nil)

func newConn(s *Server, c net.Conn) *conn {
	k := &conn{server: s, net: c, socket: c, remoteAddr: c.RemoteAddr().String()}
	k.remote = hostOf(k.remoteAddr)
	if k.raw = rawConn(c); k.raw != nil {
		k.fill = k.tryFill
	}
	k.reader.Reset(c)
	k.enter(phaseIdle)
	return k
}

// rawConn is the socket of a connection, or nil.
func rawConn(c net.Conn) syscall.RawConn {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

func (c *conn) enter(p phase) {
	c.since.Store(time.Now().UnixNano())
	c.phase.Store(int32(p))
}

// serve serves requests until the connection ends.
func (c *conn) serve() {
	defer c.close()
	for {
		if err := c.await(); err != nil {
			return
		}
		c.enter(phaseHead)
		if h2, err := c.startsH2(); h2 || err != nil {
			if h2 {
				c.handOver()
			}
			return
		}
		if !c.serveOne() {
			return
		}
		c.rest()
	}
}

// startsH2 reports whether the client speaks HTTP/2, which its first bytes tell.
func (c *conn) startsH2() (bool, error) {
	for isPreface(c.reader.Buffered()) {
		if len(c.reader.Buffered()) >= len("PRI * ") {
			return true, nil
		}
		if err := c.reader.Fill(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// rest gives up what an idle connection does not need.
func (c *conn) rest() {
	c.enter(phaseIdle)
	if len(c.reader.Buffered()) == 0 {
		giveBack(c.reader.Return())
	}
	if cap(c.out) > 0 {
		giveBack(c.out[:cap(c.out)])
		c.out = nil
	}
}

// await returns when bytes of a request are there. It holds no buffer before.
func (c *conn) await() error {
	if len(c.reader.Buffered()) > 0 {
		return nil
	}
	if c.fill == nil {
		c.lend()
		return c.reader.Fill()
	}
	if err := c.raw.Read(c.fill); err != nil {
		return err
	}
	return c.fillErr
}

func (c *conn) lend() {
	if !c.reader.Lent() {
		c.reader.Lend(lendHead()[:])
	}
}

// tryFill reads what is there and returns false if nothing is, to be called again then.
func (c *conn) tryFill(fd uintptr) bool {
	c.lend()
	for {
		n, err := unix.Read(int(fd), c.reader.Free())
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			giveBack(c.reader.Return())
			return false
		case err != nil:
			c.fillErr = err
		case n == 0:
			c.fillErr = io.EOF
		default:
			c.reader.Filled(n)
		}
		return true
	}
}

// serveOne serves one request and reports whether the connection can carry another. A handler that panics ends the connection and
// nothing else.
func (c *conn) serveOne() (again bool) {
	h := c.server.handler()
	defer func() {
		if reason := recover(); reason != nil {
			c.server.opts.Log.Error("serving a request panicked", "reason", reason, "stack", string(debug.Stack()))
			// Nothing may go on using the connection's buffers, which are about to be given back.
			c.abandon(h.Engine())
			again = false
			return
		}
		c.server.release(h)
	}()
	x := h.Engine()
	x.reset(c)
	x.Remote, x.RemoteAddr, x.Secure = c.remote, c.remoteAddr, c.secure
	var err error
	x.head, err = http1.ReadRequest(&c.reader, x.head, maxHead, &x.Request)
	c.ending, c.framing = http1.Close, http1.None
	c.out = c.out[:0]
	if err != nil {
		c.refuse(x, err)
		return false
	}
	c.body.begin(&c.reader, &x.Request)
	x.body.reset(x, &c.body, x.Request.Length)
	c.enter(phaseActive)
	c.x.Store(x)
	if c.server.over.Load() {
		x.Cancel(context.Cause(c.server.opts.Base)) // it came too late for cancelAll
	}
	failure := h.Handle()
	c.x.Store(nil)
	x.end()
	return c.conclude(x, failure)
}

// abandon ends a request whose handler has panicked.
func (c *conn) abandon(x *Exchange) {
	c.x.Store(nil)
	_ = c.net.Close()
	x.Cancel(errPanicked)
	x.end()
}

// conclude looks at a request that has been handled.
func (c *conn) conclude(x *Exchange, failure error) (again bool) {
	switch {
	case c.taken:
		return false
	case failure != nil:
		c.reset()
		return false
	case !x.Started():
		_ = x.Reply(http.StatusInternalServerError, "text/plain; charset=utf-8", "no answer\n")
	}
	if c.flush() != nil {
		return false
	}
	if !x.body.complete() {
		c.linger()
		return false
	}
	return c.ending != http1.Close && !c.spoiled.Load()
}

// refuse answers what is no request.
func (c *conn) refuse(x *Exchange, err error) {
	var mistake *http1.Error
	if !errors.As(err, &mistake) {
		return
	}
	x.body.reset(x, &c.body, 0)
	if x.Reply(mistake.Status, "text/plain; charset=utf-8", mistake.Text+"\n") == nil && c.flush() == nil {
		c.linger()
	}
}

// reset ends the connection so that the client sees that the response is not whole.
func (c *conn) reset() {
	if t, ok := c.net.(interface{ SetLinger(sec int) error }); ok && c.framing == http1.UntilClose {
		_ = t.SetLinger(0)
	}
}

// linger lets the client read the response although it still sends.
func (c *conn) linger() {
	if half, ok := c.net.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.net.SetReadDeadline(time.Now().Add(lingerTime))
	buf := lendHead()
	defer headBuffers.Put(buf)
	for left := lingerBytes; left > 0; {
		n, err := c.net.Read(buf[:])
		if err != nil {
			return
		}
		left -= n
	}
}

func (c *conn) close() {
	if !c.taken {
		_ = c.net.Close()
	}
	giveBack(c.reader.Return())
	c.server.forget(c)
}

// informational implements client.
func (c *conn) informational(res *message.Response) error {
	x := c.x.Load()
	if x == nil || x.Request.Minor == 0 {
		return nil // HTTP/1.0 knows none
	}
	c.out = http1.AppendResponse(c.out, res, http1.None, http1.KeepAlive)
	return c.flush()
}

// begin implements client.
func (c *conn) begin(res *message.Response, body http1.Framing) error {
	x := c.x.Load() // nil for what is no request
	minor := 1
	if x != nil {
		minor = x.Request.Minor
	}
	head := headFraming(res, body, minor)
	if head == http1.None && x != nil && x.Request.Method != http.MethodHead && mayHaveBody(res.Status) {
		head, res.Length = http1.Length, 0 // HTTP/2 need not say that there is nothing, and here it would mean "until the end"
	}
	c.framing = body
	if body != http1.None {
		c.framing = head
	}
	switch {
	// The rest of the body must never be taken for the next request, and waiting for it before answering would let a slow client delay
	// its own error.
	case x == nil, head == http1.UntilClose, x.Request.Close, c.server.stopping(), !x.body.complete():
		c.ending = http1.Close
	case minor == 0:
		c.ending = http1.KeepAliveSaid
	default:
		c.ending = http1.KeepAlive
	}
	if cap(c.out) == 0 {
		c.out = lendHead()[:0]
	}
	if !res.Header.Has(message.Date) {
		res.Header.Add(message.Date, c.server.date()) // RFC 9110 section 6.6.1
	}
	c.out = http1.AppendResponse(c.out, res, head, c.ending)
	return nil
}

// headFraming is what the head of a response says about a body of a framing.
func headFraming(res *message.Response, body http1.Framing, minor int) http1.Framing {
	switch {
	case res.Status < 200 || res.Status == http.StatusNoContent:
		return body
	case body == http1.None && res.Length >= 0:
		return http1.Length // nothing, or the response to HEAD: the length that there would be
	case (body == http1.Chunked || body == http1.UntilClose) && minor == 0:
		return http1.UntilClose
	case body == http1.UntilClose:
		return http1.Chunked // so that a body that breaks off does not look whole
	}
	return body
}

// mayHaveBody reports whether a final response of a status can have a body.
func mayHaveBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// write implements client.
func (c *conn) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if c.framing == http1.Chunked {
		c.out = http1.AppendChunk(c.out, len(p))
	}
	if len(c.out)+len(p) > flushAt {
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.send(p); err != nil {
			return err
		}
	} else {
		c.out = append(c.out, p...)
	}
	if c.framing == http1.Chunked {
		c.out = append(c.out, http1.ChunkEnd...)
	}
	return nil
}

// flush implements client.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.send(c.out)
	c.out = c.out[:0]
	return err
}

func (c *conn) send(p []byte) error {
	c.writing.Store(time.Now().UnixNano())
	_, err := c.net.Write(p)
	c.writing.Store(0)
	return err
}

// finish implements client. The end of the response is sent when the handler has returned: whoever has it finds the request counted and
// its place free.
func (c *conn) finish(trailers *message.Header) error {
	if c.framing == http1.Chunked {
		c.out = http1.AppendLastChunk(c.out, trailers)
	}
	return nil
}

// interruptRead implements client.
func (c *conn) interruptRead() { _ = c.net.SetReadDeadline(past) }

// resumeRead implements client.
func (c *conn) resumeRead() { _ = c.net.SetReadDeadline(time.Time{}) }

// interrupt implements client.
func (c *conn) interrupt() {
	c.spoiled.Store(true)
	_ = c.net.SetDeadline(past)
}

// take gives the connection to somebody else, with what has been read of it already.
func (c *conn) take() (net.Conn, []byte) {
	c.taken = true
	c.server.upgrade(c)
	return c.net, append([]byte(nil), c.reader.Buffered()...)
}

// requestBody reads the body of one request from a connection.
type requestBody struct {
	body http1.Body
}

var _ bodySource = (*requestBody)(nil)

func (b *requestBody) begin(r *http1.Reader, req *message.Request) {
	framing := http1.None
	switch {
	case req.Length > 0:
		framing = http1.Length
	case req.Length < 0:
		framing = http1.Chunked
	}
	b.body.Reset(r, framing, req.Length)
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	data, err := b.body.Next(len(p))
	return copy(p, data), err
}

// there implements bodySource.
func (b *requestBody) there() int { return b.body.There() }

func (b *requestBody) trailers() *message.Header { return &b.body.Trailers }
