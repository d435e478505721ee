package engine

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// maxBuffered is the greatest request body that is taken into memory while the request is parked. Ten thousand of them may be.
const maxBuffered = 16 << 10

// Exchange is one request of a client and the response to it.
type Exchange struct {
	// Writer and Request are the client's side. Filters may change the request's headers until it is forwarded.
	Writer  http.ResponseWriter
	Request *http.Request
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

	control *http.ResponseController
	body    clientBody
	// moved is the time of the last progress in nanoseconds after Begun.
	moved    atomic.Int64
	started  atomic.Bool
	hijacked atomic.Bool
	// upgrade is the protocol that the client wants to switch to.
	upgrade  string
	prepared bool
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

// Begin makes x the exchange of a request that a Server has handed over.
func (x *Exchange) Begin(w http.ResponseWriter, r *http.Request) {
	x.Writer, x.Request = w, r
	x.control = http.NewResponseController(w)
	x.Begun = time.Now()
	x.body.exchange, x.body.src, x.body.length = x, r.Body, r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		x.body.src, x.body.length, x.body.eof = http.NoBody, 0, true
	}
}

// Started reports whether the response has begun. It may be called concurrently.
func (x *Exchange) Started() bool { return x.started.Load() }

// Moved notes that there is progress. It may be called concurrently.
func (x *Exchange) Moved() { x.moved.Store(int64(time.Since(x.Begun))) }

// LastMoved is when there was progress last: bytes in either direction, or a call of Moved. It may be called concurrently.
func (x *Exchange) LastMoved() time.Time { return x.Begun.Add(time.Duration(x.moved.Load())) }

// Interrupt makes reads from and writes to the client fail from now on, for an exchange that is out of time. It may be called
// concurrently.
func (x *Exchange) Interrupt() {
	past := time.Unix(1, 0)
	_ = x.control.SetReadDeadline(past)
	_ = x.control.SetWriteDeadline(past)
}

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

// Buffer takes a small request body into memory, so that a client that leaves while its request is parked is noticed. A client
// that waits for "100 Continue" sends its body only when an instance asks for it.
func (x *Exchange) Buffer() error {
	if x.body.length <= 0 || x.body.length > maxBuffered || x.body.eof || x.Request.Header["Expect"] != nil || !x.body.unread() ||
		len(x.body.buffered) > 0 {
		return nil
	}
	return x.body.fill()
}

// Reply answers with a short text of the proxy's own. The caller sets further headers on Writer before.
func (x *Exchange) Reply(status int, contentType, text string) {
	h := x.Writer.Header()
	h["Content-Type"] = []string{contentType}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	x.closeUnlessComplete()
	x.begin(status)
	if x.Request.Method != http.MethodHead {
		_, _ = io.WriteString(x.Writer, text)
	}
}

// Conclude ends a response that has begun with a last text and reports whether it could: a body of declared length can only be cut.
// The caller sets trailers on Writer before.
func (x *Exchange) Conclude(text string) bool {
	if x.hijacked.Load() || x.Request.Method == http.MethodHead || !x.Request.ProtoAtLeast(1, 1) || len(x.Writer.Header()["Content-Length"]) > 0 {
		return false
	}
	if _, err := io.WriteString(x.Writer, text); err != nil {
		return false
	}
	return x.control.Flush() == nil
}

// begin sends the status and header of the final response.
func (x *Exchange) begin(status int) {
	x.start(status)
	x.Writer.WriteHeader(status)
}

// start notes that the response begins.
func (x *Exchange) start(status int) {
	x.Status = status
	x.FirstByte = time.Now()
	x.started.Store(true)
	x.Moved()
	if x.Observer != nil {
		x.Observer.Answered(x.FirstByte)
	}
}

// closeUnlessComplete ends an HTTP/1 connection after a response that comes before the request's end. The rest of the body must never
// be taken for the next request, and waiting for it before answering would let a slow client delay its own error.
func (x *Exchange) closeUnlessComplete() {
	if x.Request.ProtoMajor == 1 && !x.body.complete() {
		x.Writer.Header()["Connection"] = []string{"close"}
	}
}

// End must be called last, before the handler returns. It waits for reads of the request body to end.
func (x *Exchange) End() {
	if x.hijacked.Load() {
		return
	}
	x.body.stop(x.control)
	if x.Request.ProtoMajor == 1 && !x.body.complete() {
		_ = x.control.SetReadDeadline(time.Now().Add(lingerTime))
	}
}
