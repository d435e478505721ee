package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/weft-dev/weft/mesh/message"
)

// errBody wraps what is wrong with the framing of a body.
var errBody = errors.New("malformed body")

// Limits of a chunked body beside its data.
const (
	maxChunkLine   = 256
	maxTrailerSize = 16 << 10
)

// chunkPart is a part of a chunked body beside its data.
type chunkPart uint8

// The parts.
const (
	partLine     chunkPart = iota // the line before a chunk
	partEnd                       // the CRLF after a chunk's data
	partTrailers                  // what follows the last chunk
)

// Body reads one body. A read that fails because of a deadline can be tried again. Its methods are not safe for concurrent use.
type Body struct {
	r       *Reader
	framing Framing
	// left is what is left of the body, or of the chunk.
	left int64
	// next is what comes after the data that is left of a chunk.
	next chunkPart
	done bool
	// Trailers are those that came after a chunked body.
	Trailers message.Header
	trailers []byte
}

// Reset begins to read a body. Length is that of a body of framing Length.
func (b *Body) Reset(r *Reader, framing Framing, length int64) {
	b.r, b.framing, b.left = r, framing, 0
	if framing == Length {
		b.left = length
	}
	b.next = partLine
	b.done = framing == None || (framing == Length && length == 0)
	b.Trailers.Reset()
}

// Done reports whether the whole body has been taken.
func (b *Body) Done() bool { return b.done }

// Left is how much of a body of known length has not been taken; negative when that is not known.
func (b *Body) Left() int64 {
	switch {
	case b.done:
		return 0
	case b.framing == Length:
		return b.left
	}
	return -1
}

// There is how many bytes Next would return without waiting for the connection, of a body of known length.
func (b *Body) There() int {
	if b.framing != Length {
		return 0
	}
	return int(min(int64(len(b.r.Buffered())), b.left))
}

// Ready reports whether Next would return without waiting for the connection.
func (b *Body) Ready() bool {
	return b.done || b.r.err != nil || len(b.r.Buffered()) > 0 && (b.framing != Chunked || b.left > 0)
}

// Next returns the next bytes of the body, at most max, which hold until the following call. At the end the error is io.EOF; that of
// a body that breaks off is io.ErrUnexpectedEOF.
func (b *Body) Next(limit int) ([]byte, error) {
	if b.done {
		return nil, io.EOF
	}
	if b.framing == Chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil || b.done {
			return nil, orEOF(err)
		}
	}
	if len(b.r.Buffered()) == 0 {
		if err := b.r.Fill(); err != nil {
			if errors.Is(err, io.EOF) && b.framing == UntilClose {
				b.done = true
				return nil, io.EOF
			}
			return nil, unexpected(err)
		}
	}
	data := b.r.Buffered()
	data = data[:min(len(data), limit)]
	if b.framing != UntilClose {
		data = data[:min(int64(len(data)), b.left)]
		b.left -= int64(len(data))
		b.done = b.left == 0 && b.framing == Length
	}
	b.r.discard(len(data))
	return data, nil
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// nextChunk reads the line before a chunk, and after the last one the trailers.
func (b *Body) nextChunk() error {
	if b.next == partEnd {
		if err := b.want(len(crlf)); err != nil {
			return err
		}
		if !bytes.HasPrefix(b.r.Buffered(), crlf) {
			return errBody
		}
		b.r.discard(len(crlf))
		b.next = partLine
	}
	if b.next == partLine {
		size, err := b.chunkSize()
		if err != nil {
			return err
		}
		if size > 0 {
			b.left, b.next = size, partEnd
			return nil
		}
		b.next = partTrailers
	}
	return b.readTrailers()
}

// want waits for n bytes.
func (b *Body) want(n int) error {
	for len(b.r.Buffered()) < n {
		if err := b.r.Fill(); err != nil {
			return unexpected(err)
		}
	}
	return nil
}

// chunkSize reads a line of chunk size and extensions, which mean nothing to us.
func (b *Body) chunkSize() (int64, error) {
	for {
		line := b.r.Buffered()
		end := bytes.IndexByte(line, '\n')
		if end < 0 && len(line) < maxChunkLine {
			if err := b.r.Fill(); err != nil {
				return 0, unexpected(err)
			}
			continue
		}
		if end < 1 || end > maxChunkLine || line[end-1] != '\r' {
			return 0, errBody
		}
		size, ok := parseChunkLine(line[:end-1])
		if !ok {
			return 0, errBody
		}
		b.r.discard(end + 1)
		return size, nil
	}
}

func parseChunkLine(line []byte) (int64, bool) {
	var size uint64
	digits := 0
	for ; digits < len(line); digits++ {
		d, ok := hexDigit(line[digits])
		if !ok {
			break
		}
		if digits == 15 {
			return 0, false
		}
		size = size<<4 | d
	}
	if digits == 0 {
		return 0, false
	}
	extension := line[digits:]
	return int64(size), len(extension) == 0 || extension[0] == ';' && all(extension, valueByte)
}

// readTrailers reads what follows the last chunk.
func (b *Body) readTrailers() error {
	if err := b.want(len(crlf)); err != nil {
		return err
	}
	if bytes.HasPrefix(b.r.Buffered(), crlf) {
		b.r.discard(len(crlf))
		b.done = true
		return nil
	}
	head, err := readHead(b.r, b.trailers[:0], maxTrailerSize)
	b.trailers = head
	if err != nil {
		return unexpected(err)
	}
	if err := parseFields(head, &b.Trailers); err != nil {
		return err
	}
	b.Trailers.RemoveHopByHop()
	b.Trailers.DelAll(notInTrailers)
	b.done = true
	return nil
}

// notInTrailers are fields that would change how the message is read (RFC 9110 section 6.5.1).
var notInTrailers = message.SetOf(message.ContentLength, message.Host, message.Expect, message.ContentType)
