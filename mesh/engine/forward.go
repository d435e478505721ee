package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
)

const bufferSize = 32 << 10

// buffers holds the 32 KB buffers of all copies. A pool is the one kind of package state that carries no meaning.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Forward sends the request to an instance and the response to the client. An error that wraps ErrCut came after the response had
// begun; before that the exchange is still open, and the caller may forward again (see Resendable) or Reply.
func (x *Exchange) Forward(ctx context.Context, up *Upstream, protocol Protocol) error {
	x.prepare()
	informational := informational{x: x}
	out := x.outgoing(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: informational.forward}), up)
	res, err := up.transport(protocol).RoundTrip(out)
	informational.end()
	if err != nil {
		return roundTripError(ctx, err)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.switchProtocols(ctx, res)
	}
	defer func() { _ = res.Body.Close() }()
	return x.respond(ctx, res)
}

// prepare makes the client's request ready to be sent, once.
func (x *Exchange) prepare() {
	if x.prepared {
		return
	}
	x.prepared = true
	h := x.Request.Header
	if x.Request.ProtoMajor == 1 {
		x.upgrade = upgradeType(h)
	}
	trailers := hasToken(h["Te"], "trailers")
	removeHopByHop(h)
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if x.upgrade != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{x.upgrade}
		webSocketCase(h)
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // or the transport would add its own
	}
	if !x.body.eof {
		// The instance may answer before the client has sent all, as it may without a proxy.
		_ = x.control.EnableFullDuplex()
		if x.Request.Trailer == nil && x.body.length < 0 {
			// net/http fills this map when the body ends, so that trailers that were not announced pass too.
			x.Request.Trailer = make(http.Header)
		}
	}
}

// outgoing builds the request of one attempt.
func (x *Exchange) outgoing(ctx context.Context, up *Upstream) *http.Request {
	r := x.Request
	out := r.WithContext(ctx)
	out.URL = &url.URL{Scheme: "http", Host: up.address}
	if target := r.RequestURI; strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") {
		out.URL.Opaque = target // exactly the bytes of the client: %2F and the like must not be decoded on the way
	} else {
		out.URL.Path, out.URL.RawPath = r.URL.Path, r.URL.RawPath
		out.URL.RawQuery, out.URL.ForceQuery = r.URL.RawQuery, r.URL.ForceQuery
	}
	out.RequestURI = ""
	out.Close = false
	out.GetBody = nil
	if x.body.eof && len(x.body.buffered) == 0 {
		out.Body = http.NoBody
		out.ContentLength = 0
	} else {
		out.Body = x.body.attempt()
	}
	return out
}

// informational passes 1xx responses on, until the final response is there.
type informational struct {
	x *Exchange
	// mu guards ended and the writer: the transport may call from its own goroutine after RoundTrip has returned an error.
	mu    sync.Mutex
	ended bool
}

func (i *informational) forward(code int, header textproto.MIMEHeader) error {
	if code == http.StatusContinue {
		return nil // the server sends its own as soon as the body is read, which the transport does now
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended || !i.x.Request.ProtoAtLeast(1, 1) {
		return nil
	}
	h := i.x.Writer.Header()
	maps.Copy(h, header)
	i.x.Writer.WriteHeader(code)
	clear(h)
	return nil
}

func (i *informational) end() {
	i.mu.Lock()
	i.ended = true
	i.mu.Unlock()
}

// respond sends a final response to the client.
func (x *Exchange) respond(ctx context.Context, res *http.Response) error {
	h := x.Writer.Header()
	removeHopByHop(res.Header)
	maps.Copy(h, res.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would guess one
	}
	bodiless := x.Request.Method == http.MethodHead || res.Body == http.NoBody || res.ContentLength == 0
	if bodiless && res.ProtoMajor == 2 && res.ContentLength <= 0 {
		if _, ok := h["Content-Length"]; !ok {
			h["Content-Length"] = nil // a gRPC response of trailers only has none
		}
	}
	announced := len(res.Trailer)
	if announced > 0 {
		names := make([]string, 0, announced)
		for name := range res.Trailer {
			names = append(names, name)
		}
		h["Trailer"] = []string{strings.Join(names, ", ")}
	}
	x.closeUnlessComplete()
	x.begin(res.StatusCode)
	if !bodiless {
		if res.ContentLength < 0 {
			_ = x.control.Flush() // a stream: its reader may wait for the header
		}
		if err := x.copyBody(ctx, res); err != nil {
			return err
		}
	}
	x.trailers(res, announced)
	return nil
}

// trailers sends what came after the body.
func (x *Exchange) trailers(res *http.Response, announced int) {
	h := x.Writer.Header()
	prefix := ""
	if len(res.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range res.Trailer {
		h[prefix+name] = values
	}
}

// copyBody streams the response body. Whatever has come is sent on before waiting for more.
func (x *Exchange) copyBody(ctx context.Context, res *http.Response) error {
	buf, _ := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	left := res.ContentLength
	for {
		n, readErr := res.Body.Read(buf[:])
		if n > 0 {
			if _, err := x.Writer.Write(buf[:n]); err != nil {
				return fmt.Errorf("%w: %w", cutError(ctx, ErrClientGone), err)
			}
			x.Moved()
			left -= int64(n)
		}
		switch {
		case errors.Is(readErr, io.EOF):
			return nil
		case readErr != nil:
			return cutError(ctx, readErr)
		case left == 0:
			// All of a body of known length: the server flushes when the handler returns, in the same packet.
		case n < bufferSize:
			if err := x.control.Flush(); err != nil {
				return fmt.Errorf("%w: %w", cutError(ctx, ErrClientGone), err)
			}
		}
	}
}
