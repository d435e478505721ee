package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

func formatLength(n int64) string { return strconv.FormatInt(n, 10) }

// transport is net/http's client of HTTP/2 to the instance.
func (u *Upstream) transport() *http.Transport {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.h2 == nil {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		u.h2 = &http.Transport{
			DialContext:            u.dialH2,
			Protocols:              protocols,
			DisableCompression:     true, // bytes pass as they are
			IdleConnTimeout:        upstreamIdle,
			MaxResponseHeaderBytes: maxResponse,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		}
	}
	return u.h2
}

func (u *Upstream) dialH2(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return c, nil
}

// forwardH2 is Forward for an instance of HTTP/2.
func (x *Exchange) forwardH2(up *Upstream) error {
	if cause := x.Cause(); cause != nil {
		return cause
	}
	early := informational{x: x}
	ctx, cancel := context.WithCancel(httptrace.WithClientTrace(x.Context(), &httptrace.ClientTrace{Got1xxResponse: early.forward}))
	defer cancel()
	x.Moved()
	res, err := up.transport().RoundTrip(x.outgoing(ctx, up))
	early.end()
	if err != nil {
		if cause := x.Cause(); cause != nil {
			return cause
		}
		if errors.Is(err, ErrNotConnected) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrNoResponse, err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := sound(res); err != nil {
		return err
	}
	body := readStreamResponse(&x.response, res, x.Request.Method)
	from := &transportBody{res: res, buf: lendCopy()}
	defer copyBuffers.Put(from.buf)
	return x.respond(from, body)
}

// sound refuses what HTTP/1 could not say.
func sound(res *http.Response) error {
	if res.StatusCode < http.StatusOK || res.StatusCode > 999 {
		return fmt.Errorf("%w: status %d", ErrNoResponse, res.StatusCode)
	}
	return nil
}

// outgoing builds the request of one attempt.
func (x *Exchange) outgoing(ctx context.Context, up *Upstream) *http.Request {
	r := &x.Request
	out := (&http.Request{
		Method: strings.Clone(r.Method), URL: &url.URL{Scheme: "http", Host: up.address}, Host: strings.Clone(r.Host),
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: make(http.Header, len(r.Header.Fields())+1), Body: http.NoBody,
	}).WithContext(ctx)
	if target := strings.Clone(r.Target); strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") {
		out.URL.Opaque = target // exactly the bytes of the client: %2F and the like must not be decoded on the way
	} else if u, err := url.ParseRequestURI(target); err == nil {
		out.URL.Path, out.URL.RawPath, out.URL.RawQuery, out.URL.ForceQuery = u.Path, u.RawPath, u.RawQuery, u.ForceQuery
	} else {
		out.URL.Opaque = target
	}
	setFields(out.Header, &r.Header, "")
	if r.TrailersWanted {
		out.Header["Te"] = []string{"trailers"}
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or the transport would add its own
	}
	if x.body.length != 0 {
		out.Body, out.ContentLength = &outgoingBody{attemptBody: x.body.attempt(), out: out}, x.body.length
		if x.body.length < 0 {
			// The transport sends what is in this map when the body has ended, so that trailers that were not announced pass too.
			// An instance in Go takes only those that were announced.
			out.Trailer = make(http.Header)
			for name := range strings.SplitSeq(r.Trailers, ",") {
				if name = strings.Clone(strings.Trim(name, " \t")); name != "" {
					out.Trailer[http.CanonicalHeaderKey(name)] = nil
				}
			}
		}
	}
	return out
}

// outgoingBody is a request body on its way to an instance of HTTP/2.
type outgoingBody struct {
	*attemptBody

	out *http.Request
}

// Read implements io.Reader.
func (b *outgoingBody) Read(p []byte) (int, error) {
	n, err := b.attemptBody.Read(p)
	if err == io.EOF && b.out.Trailer != nil { //nolint:errorlint // io.Reader returns it bare
		b.takeTrailers()
	}
	return n, err
}

// takeTrailers is for the transport's goroutine: the exchange may have ended meanwhile.
func (b *outgoingBody) takeTrailers() {
	body := b.body
	body.mu.Lock()
	defer body.mu.Unlock()
	if body.owner != b.attemptBody {
		return
	}
	if trailers := body.src.trailers(); trailers != nil {
		clear(b.out.Trailer)
		setFields(b.out.Trailer, trailers, "")
	}
}

// informational passes 1xx responses on, until the final response is there.
type informational struct {
	x *Exchange
	// mu guards ended and the client: the transport may call from its own goroutine after RoundTrip has returned an error.
	mu    sync.Mutex
	ended bool
}

func (i *informational) forward(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended || code == http.StatusSwitchingProtocols {
		return nil // HTTP/2 has no 101, and a client of HTTP/1 would believe it
	}
	if code == http.StatusContinue && !i.x.Request.Header.Has(message.Expect) {
		return nil
	}
	var res message.Response
	res.Status = code
	for name, values := range header {
		for _, v := range values {
			res.Header.Append(name, v)
		}
	}
	return i.x.client.informational(&res)
}

func (i *informational) end() {
	i.mu.Lock()
	i.ended = true
	i.mu.Unlock()
}

// readStreamResponse takes over the head of a response.
func readStreamResponse(to *message.Response, res *http.Response, method string) http1.Framing {
	to.Reset()
	to.Status, to.Major, to.Length = res.StatusCode, res.ProtoMajor, res.ContentLength
	for name, values := range res.Header {
		for _, v := range values {
			to.Header.Append(name, v)
		}
	}
	to.Header.Del(message.ContentLength)
	to.Header.RemoveHopByHop()
	to.Trailers = trailerNames(res.Trailer)
	switch {
	case method == http.MethodHead || res.Body == http.NoBody || res.ContentLength == 0:
		if to.Length == 0 && res.Header["Content-Length"] == nil {
			to.Length = -1
		}
		return http1.None
	case res.ContentLength > 0:
		return http1.Length
	}
	return http1.Chunked
}

// transportBody is the body of a response over HTTP/2.
type transportBody struct {
	res     *http.Response
	buf     *[copyBuffer]byte
	trailer message.Header
}

var _ instanceBody = (*transportBody)(nil)

func (b *transportBody) next() ([]byte, error) {
	n, err := b.res.Body.Read(b.buf[:])
	return b.buf[:n], err
}

// ready cannot be known: what has come is flushed each time.
func (b *transportBody) ready() bool { return false }

func (b *transportBody) trailers() *message.Header {
	b.trailer.Reset()
	for name, values := range b.res.Trailer {
		for _, v := range values {
			b.trailer.Append(name, v)
		}
	}
	return &b.trailer
}
