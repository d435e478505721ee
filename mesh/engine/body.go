package engine

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

var errBodyTaken = errors.New("request body no longer belongs to this attempt")

// lingerTime is how long a client that still sends a body after the whole response gets to read that response before the
// connection is closed under it.
const lingerTime = 500 * time.Millisecond

// clientBody is the request body as it comes from the client. Every attempt to forward reads it through its own attemptBody, and
// only the newest of them may: a transport may go on reading for a while after RoundTrip has returned, and net/http panics on
// reads after the handler has returned.
type clientBody struct {
	exchange *Exchange
	src      io.ReadCloser
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
	// idle is closed when the read in progress returns; nil while nobody waits.
	idle chan struct{}
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
	switch {
	case b.owner != a || b.reading:
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
	b.eof = b.eof || errors.Is(err, io.EOF)
	if b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
	return n, err
}

// Close implements io.Closer. The body stays open for another attempt; the server closes it at the end.
func (a *attemptBody) Close() error { return nil }

// unread reports whether nothing has been taken that could not be sent again.
func (b *clientBody) unread() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read == 0 && !b.reading
}

// complete reports whether the client has sent all of it.
func (b *clientBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.eof || (b.length >= 0 && int64(len(b.buffered))+b.read >= b.length)
}

// stop takes the body from the current attempt and returns when no read is in progress.
func (b *clientBody) stop(control *http.ResponseController) {
	b.mu.Lock()
	b.owner = nil
	if !b.reading {
		b.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	b.idle = idle
	b.mu.Unlock()
	_ = control.SetReadDeadline(time.Unix(1, 0))
	<-idle
}

// fill reads the whole body into memory, for a body known to be small. An error is the client's.
func (b *clientBody) fill() error {
	buf := make([]byte, b.length)
	n, err := io.ReadFull(b.src, buf)
	b.mu.Lock()
	b.buffered = buf[:n]
	b.mu.Unlock()
	if err != nil {
		return err
	}
	// Reading to the end is what makes net/http watch the connection, so that a client that leaves is noticed.
	var one [1]byte
	if _, err := b.src.Read(one[:]); !errors.Is(err, io.EOF) {
		return err
	}
	b.mu.Lock()
	b.eof = true
	b.mu.Unlock()
	return nil
}
