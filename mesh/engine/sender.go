package engine

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/weft-dev/weft/mesh/http1"
)

// chunkRoom is the room for the line before a chunk.
const chunkRoom = 18

// sender sends a request body to an instance of HTTP/1 while the response is read.
type sender struct {
	x    *Exchange
	to   *instanceConn
	body *attemptBody
	// chunked is set when only the end of the body tells its length.
	chunked bool
	// running is set from start until the end has been waited for.
	running bool
	// complete is set when the whole body was sent.
	complete atomic.Bool
	// ended receives a value when the goroutine ends.
	ended chan struct{}
	// run is send, made once.
	run func()
}

// sendBody begins to send the rest of the body.
func (x *Exchange) sendBody(to *instanceConn) {
	s := &x.sender
	if s.run == nil {
		s.x, s.ended, s.run = x, make(chan struct{}, 1), s.send
	}
	s.to, s.body, s.chunked = to, x.body.attempt(), x.body.length < 0
	s.complete.Store(false)
	s.running = true
	go s.run()
}

// stopSending returns when nothing is being sent any more, and whether the whole body was and the instance's connection is as before.
func (x *Exchange) stopSending() (complete bool) {
	s := &x.sender
	if !s.running {
		return true
	}
	if complete = s.complete.Load(); !complete {
		// It waits for the client or for the instance.
		x.body.stop(x)
		s.to.abort()
	}
	<-s.ended
	s.running = false
	s.to, s.body = nil, nil
	return complete
}

func (s *sender) send() {
	defer func() { s.ended <- struct{}{} }()
	buf := lendCopy()
	defer copyBuffers.Put(buf)
	for {
		n, err := s.body.Read(buf[chunkRoom : len(buf)-len(http1.ChunkEnd)])
		if n > 0 {
			if s.write(buf, n) != nil {
				return // the response says why, or the lack of one
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if s.chunked && !s.last(buf) {
				return
			}
			s.complete.Store(true)
			return
		case errors.Is(err, errBodyTaken):
			return
		case err != nil:
			s.clientFailed()
			return
		case !s.chunked && s.x.body.complete():
			s.complete.Store(true)
			return
		}
	}
}

// clientFailed gives the exchange up when the client has left, not when the read was interrupted.
func (s *sender) clientFailed() {
	b := s.body.body
	b.mu.Lock()
	failed := b.failed
	b.mu.Unlock()
	if failed != nil {
		s.x.Cancel(ErrClientGone)
	}
}

// write sends n bytes that lie in buf behind chunkRoom.
func (s *sender) write(buf *[copyBuffer]byte, n int) error {
	data := buf[chunkRoom : chunkRoom+n]
	if s.chunked {
		var line [chunkRoom]byte
		head := http1.AppendChunk(line[:0], n)
		from := chunkRoom - len(head)
		copy(buf[from:], head)
		copy(buf[chunkRoom+n:], http1.ChunkEnd)
		data = buf[from : chunkRoom+n+len(http1.ChunkEnd)]
	}
	_, err := s.to.net.Write(data)
	return err
}

// last sends the end of a chunked body.
func (s *sender) last(buf *[copyBuffer]byte) bool {
	_, err := s.to.net.Write(http1.AppendLastChunk(buf[:0], s.x.body.src.trailers()))
	return err == nil
}
