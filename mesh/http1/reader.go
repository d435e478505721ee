package http1

import (
	"errors"
	"io"
)

// errNoProgress is returned when a source returns neither bytes nor an error again and again.
var errNoProgress = errors.New("reading connection: no progress")

// Reader is a buffer before a connection. The buffer is lent, so that a connection that waits need not hold one. It is not safe for
// concurrent use.
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int
	// err came with the bytes that were read last and is not returned before they are taken.
	err error
}

// Reset begins to read from src.
func (r *Reader) Reset(src io.Reader) { *r = Reader{src: src, buf: r.buf} }

// Lend gives the reader a buffer; what is buffered moves there. It must be large enough for that.
func (r *Reader) Lend(buf []byte) {
	n := copy(buf, r.buf[r.start:r.end])
	r.buf, r.start, r.end = buf, 0, n
}

// Return takes the buffer back, which must be empty, and leaves the reader without one.
func (r *Reader) Return() []byte {
	buf := r.buf
	r.buf, r.start, r.end = nil, 0, 0
	return buf
}

// Lent reports whether the reader has a buffer.
func (r *Reader) Lent() bool { return r.buf != nil }

// Size is that of the buffer.
func (r *Reader) Size() int { return len(r.buf) }

// Buffered are the bytes that have been read and not been taken. They hold until the next call.
func (r *Reader) Buffered() []byte { return r.buf[r.start:r.end] }

// Filled tells the reader that n bytes have been read into Free by somebody else.
func (r *Reader) Filled(n int) { r.end += n }

// Free is the part of the buffer that can be read into.
func (r *Reader) Free() []byte {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	return r.buf[r.end:]
}

// grow makes room for a head that is larger than the buffer, which is left to the garbage collector: few are.
func (r *Reader) grow(size int) { r.Lend(make([]byte, size)) }

// discard takes n bytes.
func (r *Reader) discard(n int) { r.start += n }

// Fill reads at least one byte more. The buffer must have room.
func (r *Reader) Fill() error {
	if err := r.err; err != nil {
		r.err = nil
		return err
	}
	if r.start > 0 && r.end == len(r.buf) {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	free := r.Free()
	if len(free) == 0 {
		return io.ErrShortBuffer
	}
	for range 100 {
		n, err := r.src.Read(free)
		r.end += n
		if n > 0 {
			r.err = err
			return nil
		}
		if err != nil {
			return err // not kept: a read that was interrupted by a deadline goes on where it was
		}
	}
	return errNoProgress
}

// Exchange gives the reader another buffer, moves what is buffered there, and returns the old one.
func (r *Reader) Exchange(buf []byte) []byte {
	old := r.buf
	r.Lend(buf)
	return old
}
