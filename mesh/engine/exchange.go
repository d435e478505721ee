package engine

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

// maxBuffered is the greatest request body that is taken into memory while the request is parked. Ten thousand of them may be.
const maxBuffered = 16 << 10

// Exchange is one request of a client and the response to it. It is used again for the next request of the connection: nothing of it,
// no string either, may be kept beyond End of the exchange.
type Exchange struct {
	// Request is the client's. Filters may change it until it is forwarded.
	Request message.Request
	// Header holds fields for the proxy's own answer, see Reply.
	Header message.Header
	// Remote is the client's address without port, RemoteAddr with it.
	Remote, RemoteAddr string
	// Secure is set when the client's connection is encrypted.
	Secure bool
	// Status is the code of the response; zero while no response has begun.
	Status int
	// FirstByte is when the response began.
	FirstByte time.Time
	// Begun is when the request arrived.
	Begun time.Time
	// Observer, if any, is told when the response begins.
	Observer Observer
	// Place, if any, is told when the exchange becomes an upgraded connection.
	Place Place

	client client
	body   clientBody
	sender sender
	// response is the instance's, informational or final, and framing that of its body.
	response message.Response
	framing  http1.Framing
	// size counts the bytes of the response's body.
	size int64
	// head is what the request's strings lie in, and out what the request to the instance is made in.
	head, out []byte
	// scratch is what filters make strings in.
	scratch []byte
	// moved is the time of the last progress in nanoseconds after Begun.
	moved   atomic.Int64
	started atomic.Bool

	// mu guards the rest.
	mu sync.Mutex
	// generation counts the requests that the exchange has served, so that who is late does not cancel the next.
	generation uint64
	// cause is why the exchange was cancelled, nil as long as it was not.
	cause error
	// instance is the connection that a cancelled exchange must not wait for.
	instance interface{ abort() }
	// cancel ends the context that Context has returned, if it has.
	ctx    context.Context //nolint:containedctx // made only when something needs one
	cancel context.CancelCauseFunc
}

// Observer is told of an exchange's course.
type Observer interface {
	// Answered is called once, before the first byte of the response is sent. It must not block.
	Answered(t time.Time)
}

// Place is where an exchange is counted.
type Place interface {
	// Upgraded is called when the instance has agreed to another protocol, and UpgradeEnded when both directions have ended.
	Upgraded()
	UpgradeEnded()
}

// Handler answers the requests of an exchange, one after the other. An error means that the response was cut or that nobody is there to
// read one: the connection or stream must end.
type Handler interface {
	// Engine is the exchange of the requests; it is always the same.
	Engine() *Exchange
	Handle() error
}

// client is the side that a request came from: an HTTP/1 connection or a stream of HTTP/2. After begin come any number of writes, and
// finish unless the response is cut.
type client interface { //nolint:interfacebloat // one side of a conversation; to divide it would say nothing
	// informational sends a 1xx response.
	informational(res *message.Response) error
	// begin sends the head of the final response, which body follows. It may be held back until flush.
	begin(res *message.Response, body http1.Framing) error
	write(p []byte) error
	flush() error
	finish(trailers *message.Header) error
	// interruptRead makes reads of the request's body fail until resumeRead; they may be called concurrently with them.
	interruptRead()
	resumeRead()
	// interrupt makes reads and writes fail for good. It may be called concurrently.
	interrupt()
}

// reset makes x ready for a request of a client.
func (x *Exchange) reset(c client) {
	x.client = c
	x.Header.Reset()
	x.scratch = x.scratch[:0]
	x.Status, x.FirstByte, x.Observer, x.Place, x.size = 0, time.Time{}, nil, nil, 0
	x.Begun = time.Now()
	x.moved.Store(0)
	x.started.Store(false)
	x.mu.Lock()
	x.generation++
	x.cause, x.instance, x.ctx, x.cancel = nil, nil, nil, nil
	x.mu.Unlock()
}

// end gives up what only this request needs.
func (x *Exchange) end() {
	x.stopSending()
	x.body.stop(x)
	x.mu.Lock()
	x.generation++
	cancel := x.cancel
	x.mu.Unlock()
	if cancel != nil {
		cancel(nil)
	}
}

// Cancel gives the exchange up for a reason, which Cause and Forward return. Only the first reason counts. It may be called concurrently.
func (x *Exchange) Cancel(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cancelLocked(cause)
}

// cancelGeneration is Cancel for one who may be late.
func (x *Exchange) cancelGeneration(generation uint64, cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.generation == generation {
		x.cancelLocked(cause)
	}
}

func (x *Exchange) cancelLocked(cause error) {
	if x.cause != nil {
		return
	}
	x.cause = cause
	if x.instance != nil {
		x.instance.abort()
	}
	if x.cancel != nil {
		x.cancel(cause)
	}
}

// current is the generation of the request that is being served.
func (x *Exchange) current() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.generation
}

// Cause is why the exchange was cancelled, or nil. It may be called concurrently.
func (x *Exchange) Cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause
}

// Context returns a context that ends when the exchange is cancelled. It costs allocations, so it is for what takes long anyway.
func (x *Exchange) Context() context.Context {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ctx == nil {
		x.ctx, x.cancel = context.WithCancelCause(context.Background())
		if x.cause != nil {
			x.cancel(x.cause)
		}
	}
	return x.ctx
}

// attach tells which connection to abort when the exchange is cancelled, and fails if it has been.
func (x *Exchange) attach(instance interface{ abort() }) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != nil {
		return x.cause
	}
	x.instance = instance
	return nil
}

// detach forgets the connection. It reports whether it is as it was: a connection that was aborted cannot be used again.
func (x *Exchange) detach() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.instance = nil
	return x.cause == nil
}

// Started reports whether the response has begun. It may be called concurrently.
func (x *Exchange) Started() bool { return x.started.Load() }

// Moved notes that there is progress. It may be called concurrently.
func (x *Exchange) Moved() { x.moved.Store(int64(time.Since(x.Begun))) }

// LastMoved is when there was progress last: bytes in either direction, or a call of Moved. It may be called concurrently.
func (x *Exchange) LastMoved() time.Time { return x.Begun.Add(time.Duration(x.moved.Load())) }

// Interrupt makes reads from and writes to the client fail from now on, for an exchange that is out of time. It may be called
// concurrently.
func (x *Exchange) Interrupt() { x.client.interrupt() }

// Replayable reports whether the request can be sent once more: nothing of the body is lost, and doing it twice is the same as
// doing it once (RFC 9110 section 9.2.2).
func (x *Exchange) Replayable() bool {
	switch x.Request.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return x.Resendable()
	}
	return false
}

// Resendable reports whether nothing of the request's body is lost, so that a request that reached no instance can go to another.
func (x *Exchange) Resendable() bool { return !x.Started() && x.body.unread() }

// Buffer takes a small request body into memory, so that it does not fill the client's connection while its request is parked. A client
// that waits for "100 Continue" sends its body only when an instance asks for it.
func (x *Exchange) Buffer() error {
	if x.body.length <= 0 || x.body.length > maxBuffered || x.Request.Header.Has(message.Expect) || !x.body.fresh() {
		return nil
	}
	return x.body.fill()
}

// Reply answers with a short text of the proxy's own, and the fields of Header.
func (x *Exchange) Reply(status int, contentType, text string) error {
	x.ownResponse(status, contentType)
	res := &x.response
	res.Length = int64(len(text))
	res.Header.Add(message.XContentTypeOptions, "nosniff")
	body := http1.Length
	if x.Request.Method == http.MethodHead {
		body = http1.None
	}
	return x.reply(res, body, text)
}

// ownResponse begins the head of an answer of the proxy's own.
func (x *Exchange) ownResponse(status int, contentType string) {
	res := &x.response
	res.Reset()
	res.Status, res.Major = status, 1
	for _, f := range x.Header.Fields() {
		res.Header.Append(f.Name, f.Value)
	}
	res.Header.Add(message.ContentType, contentType)
}

// ReplyEmpty answers with a header only, of a length that is not told.
func (x *Exchange) ReplyEmpty(status int, contentType string) error {
	x.ownResponse(status, contentType)
	x.response.Length = -1
	return x.reply(&x.response, http1.None, "")
}

// Conclude ends a response that has begun with a last text and trailers, and reports whether it could: a body of declared length can
// only be cut.
func (x *Exchange) Conclude(text string, trailers *message.Header) bool {
	if x.framing != http1.Chunked && x.framing != http1.UntilClose || x.Request.Major == 1 && x.Request.Minor == 0 {
		return false
	}
	x.size += int64(len(text))
	return x.client.write([]byte(text)) == nil && x.client.finish(trailers) == nil && x.client.flush() == nil
}

func (x *Exchange) reply(res *message.Response, body http1.Framing, text string) error {
	x.start(res.Status, body)
	if err := x.client.begin(res, body); err != nil {
		return x.clientError(err)
	}
	if body != http1.None {
		x.size = int64(len(text))
		if err := x.client.write([]byte(text)); err != nil {
			return x.clientError(err)
		}
	}
	if err := x.client.finish(nil); err != nil {
		return x.clientError(err)
	}
	return nil
}

// Size is the number of bytes of the response's body so far.
func (x *Exchange) Size() int64 { return x.size }

// HTTPRequest is the request in the form of net/http, without its body, for those who must have one. It shares nothing with x.
func (x *Exchange) HTTPRequest() *http.Request {
	r := &x.Request
	target := strings.Clone(r.Target)
	out := &http.Request{
		Method: strings.Clone(r.Method), RequestURI: target, Host: strings.Clone(r.Host), RemoteAddr: x.RemoteAddr, Header: make(http.Header),
		Proto: fmt.Sprintf("HTTP/%d.%d", r.Major, r.Minor), ProtoMajor: r.Major, ProtoMinor: r.Minor, ContentLength: r.Length, Body: http.NoBody,
	}
	var err error
	if out.URL, err = url.ParseRequestURI(target); err != nil {
		out.URL = &url.URL{Opaque: target}
	}
	setFields(out.Header, &r.Header, "")
	return out
}

// start notes that the final response begins.
func (x *Exchange) start(status int, body http1.Framing) {
	x.Status, x.framing = status, body
	x.FirstByte = time.Now()
	x.moved.Store(int64(x.FirstByte.Sub(x.Begun)))
	x.started.Store(true)
	if x.Observer != nil {
		x.Observer.Answered(x.FirstByte)
	}
}
