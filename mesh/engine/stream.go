package engine

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

// preface is what a client of HTTP/2 with prior knowledge sends first (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// isPreface reports whether b may begin the preface.
func isPreface(b []byte) bool {
	return len(b) > 0 && strings.HasPrefix(preface, string(b[:min(len(b), len(preface))]))
}

// handOver lets net/http serve a connection of HTTP/2.
func (c *conn) handOver() {
	socket, early := c.take()
	c.server.serveH2(socket, early)
}

// serveH2 serves a connection of HTTP/2 and returns when it is closed.
func (s *Server) serveH2(c net.Conn, early []byte) {
	done := make(chan struct{})
	handed := &handedConn{Conn: c, first: io.MultiReader(bytes.NewReader(early), c), closed: sync.OnceFunc(func() { close(done) })}
	// Serve returns when the listener has no more connections and leaves the ones it gave to their goroutines.
	_ = s.h2.Serve(&singleListener{conn: handed})
	<-done
}

// handedConn is a connection whose first bytes were read already, and that tells when it is closed.
type handedConn struct {
	net.Conn
	first  io.Reader
	closed func()
}

// Read implements net.Conn.
func (c *handedConn) Read(p []byte) (int, error) { return c.first.Read(p) }

// Close implements net.Conn.
func (c *handedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
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

// stream is the client's side of a request over HTTP/2.
type stream struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
}

var _ client = (*stream)(nil)

// serveStream serves a request over HTTP/2.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	h := s.handler()
	x := h.Engine()
	x.Begin(w, r)
	if err := http1.CheckRequest(&x.Request); err != nil {
		x.end()
		s.release(h)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	generation := x.current()
	stop := context.AfterFunc(r.Context(), func() { x.cancelGeneration(generation, s.gone()) })
	err := h.Handle()
	stop()
	x.end()
	started := x.Started()
	s.release(h)
	if err != nil || !started {
		// A response that was cut must not look complete. This is how net/http is told to end the stream.
		panic(http.ErrAbortHandler)
	}
}

// Begin makes x the exchange of a request that net/http has received.
func (x *Exchange) Begin(w http.ResponseWriter, r *http.Request) {
	x.reset(&stream{w: w, r: r, control: http.NewResponseController(w)})
	readStreamRequest(&x.Request, r)
	x.Remote, x.RemoteAddr, x.Secure = hostOf(r.RemoteAddr), r.RemoteAddr, r.TLS != nil
	x.body.reset(x, &streamBody{r: r}, x.Request.Length)
}

// gone is why the context of a request over HTTP/2 has ended.
func (s *Server) gone() error {
	if cause := context.Cause(s.opts.Base); cause != nil {
		return cause
	}
	return ErrClientGone
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "unknown"
	}
	return host
}

// readStreamRequest takes over the head of a request.
func readStreamRequest(req *message.Request, r *http.Request) {
	req.Reset()
	req.Method, req.Target, req.Host = r.Method, r.RequestURI, r.Host
	req.Major, req.Minor = r.ProtoMajor, r.ProtoMinor
	req.Length = r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		req.Length = 0
	}
	for name, values := range r.Header {
		for _, v := range values {
			req.Header.Append(name, v)
		}
	}
	req.Header.Del(message.Host)
	req.Header.Del(message.ContentLength)
	req.TrailersWanted = req.Header.Token(message.TE, "trailers")
	req.Trailers = trailerNames(r.Trailer)
	req.Header.RemoveHopByHop()
}

// trailerNames lists the trailers that are announced.
func trailerNames(trailer http.Header) string {
	if len(trailer) == 0 {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(trailer)), ", ")
}

// streamBody is the body of a request over HTTP/2.
type streamBody struct {
	r       *http.Request
	trailer message.Header
}

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (int, error) { return b.r.Body.Read(p) }

// there implements bodySource. What net/http has received it does not tell.
func (b *streamBody) there() int { return 0 }

func (b *streamBody) trailers() *message.Header {
	b.trailer.Reset()
	for name, values := range b.r.Trailer {
		for _, v := range values {
			b.trailer.Append(name, v)
		}
	}
	return &b.trailer
}

// informational implements client.
func (t *stream) informational(res *message.Response) error {
	if res.Status == http.StatusContinue {
		return nil // net/http sends its own as soon as the body is read
	}
	h := t.w.Header()
	setFields(h, &res.Header, "")
	t.w.WriteHeader(res.Status)
	clear(h)
	return nil
}

func setFields(h http.Header, from *message.Header, prefix string) {
	fields := from.Fields()
	for i := range fields {
		// net/http keeps names for longer than the exchange, in the tables of header compression.
		name := prefix + http.CanonicalHeaderKey(strings.Clone(fields[i].Name))
		h[name] = append(h[name], strings.Clone(fields[i].Value))
	}
}

// begin implements client.
func (t *stream) begin(res *message.Response, body http1.Framing) error {
	h := t.w.Header()
	setFields(h, &res.Header, "")
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would guess one
	}
	switch {
	case res.Status == http.StatusNoContent:
	case res.Length > 0 || res.Length == 0 && res.Major == 1:
		h["Content-Length"] = []string{formatLength(res.Length)}
	case body == http1.None:
		h["Content-Length"] = nil // a gRPC response of trailers only has none
	}
	if res.Trailers != "" {
		h["Trailer"] = []string{strings.Clone(res.Trailers)}
	}
	t.w.WriteHeader(res.Status)
	return nil
}

// write implements client.
func (t *stream) write(p []byte) error {
	_, err := t.w.Write(p)
	return err
}

// flush implements client.
func (t *stream) flush() error { return t.control.Flush() }

// finish implements client. The server flushes when the handler returns, in the same packet.
func (t *stream) finish(trailers *message.Header) error {
	if trailers != nil {
		setFields(t.w.Header(), trailers, http.TrailerPrefix)
	}
	return nil
}

// interruptRead implements client.
func (t *stream) interruptRead() { _ = t.control.SetReadDeadline(past) }

// resumeRead implements client.
func (t *stream) resumeRead() { _ = t.control.SetReadDeadline(time.Time{}) }

// interrupt implements client.
func (t *stream) interrupt() {
	_ = t.control.SetReadDeadline(past)
	_ = t.control.SetWriteDeadline(past)
}
