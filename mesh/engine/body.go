package engine

import (
	"errors"
	"io"
	"sync"

	"github.com/weft-dev/weft/mesh/message"
)

var errBodyTaken = errors.New("request body no longer belongs to this attempt")

// bodySource is a request body as it comes from the client.
type bodySource interface {
	io.Reader
	// there is how many bytes Read would return without waiting; zero when that is not known.
	there() int
	// trailers are those after the body, once Read has returned io.EOF; nil for none.
	trailers() *message.Header
}

// clientBody is the request body. Every attempt to forward reads it through its own attemptBody, and only the newest of them may: a
// transport may go on reading for a while after it has returned.
type clientBody struct {
	exchange *Exchange
	src      bodySource
	length   int64

	// mu guards the rest.
	mu    sync.Mutex
	owner *attemptBody
	// buffered is what was read before the first attempt; it can be sent again.
	buffered []byte
	// sent is how much of buffered the current attempt has taken.
	sent int
	// read counts the bytes taken from src beyond buffered.
	read    int64
	eof     bool
	reading bool
	// failed is the error of a read that was not asked to stop.
	failed error
	// idle is closed when the read in progress returns; nil while nobody waits.
	idle chan struct{}
}

// reset makes b the body of a new request. Length is zero for none, negative when only the end will tell.
func (b *clientBody) reset(x *Exchange, src bodySource, length int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exchange, b.src, b.length = x, src, length
	b.owner, b.buffered, b.sent, b.read = nil, b.buffered[:0], 0, 0
	b.eof, b.reading, b.failed, b.idle = length == 0, false, nil, nil
}

// attemptBody is the view of one attempt on the body.
type attemptBody struct{ body *clientBody }

// attempt gives the body to a new attempt.
func (b *clientBody) attempt() *attemptBody {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owner = &attemptBody{body: b}
	b.sent = 0
	return b.owner
}

// Read implements io.Reader.
func (a *attemptBody) Read(p []byte) (int, error) {
	b := a.body
	b.mu.Lock()
	if b.owner != a {
		b.mu.Unlock()
		return 0, errBodyTaken
	}
	return b.readLocked(p)
}

// readLocked reads for the current attempt. It releases mu.
func (b *clientBody) readLocked(p []byte) (int, error) {
	switch {
	case b.reading:
		b.mu.Unlock()
		return 0, errBodyTaken
	case b.sent < len(b.buffered):
		n := copy(p, b.buffered[b.sent:])
		b.sent += n
		b.mu.Unlock()
		return n, nil
	case b.eof:
		b.mu.Unlock()
		return 0, io.EOF
	}
	b.reading = true
	b.mu.Unlock()

	n, err := b.src.Read(p)
	b.exchange.Moved()

	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	b.read += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		b.eof = true
	case err != nil && b.idle == nil:
		b.failed = err
	}
	if b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
	return n, err
}

// whole is the body as far as it has not been sent, if all of it is in memory, and counts as sent then. A small one that has come with
// its head is taken into memory, so that it can be sent again.
func (b *clientBody) whole() ([]byte, bool) {
	if b.length > 0 && b.length <= maxBuffered && b.fresh() && int64(b.src.there()) == b.length && b.fill() != nil {
		return nil, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(len(b.buffered)) != b.length {
		return nil, false
	}
	b.owner, b.sent = nil, len(b.buffered)
	return b.buffered, true
}

// Close implements io.Closer. The body stays open for another attempt.
func (a *attemptBody) Close() error { return nil }

// unread reports whether nothing has been taken that could not be sent again.
func (b *clientBody) unread() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read == 0 && !b.reading
}

// fresh reports whether nothing at all has been read.
func (b *clientBody) fresh() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read == 0 && !b.reading && !b.eof && len(b.buffered) == 0
}

// complete reports whether the client has sent all of it and it has been taken.
func (b *clientBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.eof || (b.length >= 0 && int64(len(b.buffered))+b.read >= b.length)
}

// stop takes the body from the current attempt and returns when no read is in progress.
func (b *clientBody) stop(x *Exchange) {
	b.mu.Lock()
	b.owner = nil
	if !b.reading {
		b.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	b.idle = idle
	b.mu.Unlock()
	x.client.interruptRead()
	<-idle
	x.client.resumeRead()
}

// fill reads the whole body into memory, for a body known to be small. An error is the client's.
func (b *clientBody) fill() error {
	if int64(cap(b.buffered)) < b.length {
		b.buffered = make([]byte, 0, b.length)
	}
	n, err := io.ReadFull(b.src, b.buffered[:b.length])
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buffered = b.buffered[:n]
	b.eof = err == nil
	return err
}
