package http1

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/weft-dev/weft/mesh/message"
)

// Limits of a head.
const (
	// MaxFields bounds the lines of a header, which a filter may have to look through.
	MaxFields = 128
	// maxNamed bounds the names in Connection, each of which is looked for among the fields.
	maxNamed = 32
)

// Error is a message that is refused: the status for a client that sent it, and why.
type Error struct {
	Status int
	Text   string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

func bad(text string) *Error { return &Error{Status: http.StatusBadRequest, Text: text} }

// The refusals, made once: hostile input must not cost memory.
var (
	errHeadTooLarge     = &Error{Status: http.StatusRequestHeaderFieldsTooLarge, Text: "header too large"}
	errTooManyFields    = &Error{Status: http.StatusRequestHeaderFieldsTooLarge, Text: "too many header fields"}
	errVersion          = &Error{Status: http.StatusHTTPVersionNotSupported, Text: "unsupported HTTP version"}
	errStartLine        = bad("malformed first line")
	errMethod           = bad("invalid method")
	errTarget           = bad("invalid request target")
	errLineEnd          = bad("a line of the header does not end in CRLF")
	errFolded           = bad("folded header field")
	errFieldName        = bad("invalid header field name")
	errFieldValue       = bad("invalid header field value")
	errConnection       = bad("too many names in Connection")
	errHost             = bad("missing, repeated or invalid Host")
	errLength           = bad("invalid or repeated Content-Length")
	errTransferEncoding = &Error{Status: http.StatusNotImplemented, Text: "unsupported Transfer-Encoding"}
	errBothFramings     = bad("Content-Length beside Transfer-Encoding")
)

var (
	crlf    = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
)

// readHead waits for a whole head of at most limit bytes, takes it from the reader, and appends it without the final empty line to dst.
func readHead(r *Reader, dst []byte, limit int) ([]byte, error) {
	scanned := 0
	for {
		b := r.Buffered()
		// An empty line before a message is the end of a sloppy one before (RFC 9112 section 2.2).
		for bytes.HasPrefix(b, crlf) {
			r.discard(len(crlf))
			b = b[len(crlf):]
			scanned = 0
		}
		from := max(scanned-len(headEnd)+1, 0)
		if i := bytes.Index(b[from:], headEnd); i >= 0 {
			n := from + i + len(crlf)
			if n+len(crlf) > limit {
				return dst, errHeadTooLarge
			}
			dst = append(dst, b[:n]...)
			r.discard(n + len(crlf))
			return dst, nil
		}
		scanned = len(b)
		if scanned >= limit {
			return dst, errHeadTooLarge
		}
		if scanned == r.Size() {
			r.grow(min(2*scanned, limit))
		}
		if err := r.Fill(); err != nil {
			if scanned > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return dst, err
		}
	}
}

// nextLine cuts the first line off, which must end in CRLF.
func nextLine(head []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(head, '\n')
	if i < 1 || head[i-1] != '\r' {
		return nil, nil, errLineEnd
	}
	return head[:i-1], head[i+1:], nil
}

// parseFields parses the lines of a header or of trailers.
func parseFields(head []byte, h *message.Header) error {
	for count := 0; len(head) > 0; count++ {
		line, rest, err := nextLine(head)
		if err != nil {
			return err
		}
		head = rest
		if count == MaxFields {
			return errTooManyFields
		}
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			return errFolded
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !all(line[:colon], tokenByte) {
			return errFieldName
		}
		value := trim(line[colon+1:])
		if !all(value, valueByte) {
			return errFieldValue
		}
		h.Append(text(line[:colon]), text(value))
	}
	return nil
}

// checkNamed refuses a header whose Connection names very many fields.
func checkNamed(h *message.Header) error {
	if !h.Has(message.Connection) {
		return nil
	}
	named := 0
	for _, f := range h.Fields() {
		if f.ID() == message.Connection {
			named += 1 + strings.Count(f.Value, ",")
		}
	}
	if named > maxNamed {
		return errConnection
	}
	return nil
}

// framing finds the length of a message's body (RFC 9112 section 6.3) and removes the fields that tell it. It is -1 when only the end
// of the body will tell.
func framing(h *message.Header, minor int, request bool) (int64, error) {
	chunked := h.Has(message.TransferEncoding)
	if chunked {
		if minor == 0 || h.Count(message.TransferEncoding) > 1 || !message.EqualFold(h.Get(message.TransferEncoding), "chunked") {
			if minor == 0 {
				return 0, bad("Transfer-Encoding in HTTP/1.0")
			}
			return 0, errTransferEncoding
		}
		if h.Has(message.ContentLength) {
			return 0, errBothFramings
		}
		return -1, nil
	}
	if !h.Has(message.ContentLength) {
		if request {
			return 0, nil
		}
		return -1, nil
	}
	if h.Count(message.ContentLength) > 1 {
		return 0, errLength
	}
	value := h.Get(message.ContentLength)
	if value == "" || len(value) > 18 {
		return 0, errLength
	}
	var n int64
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return 0, errLength
		}
		n = 10*n + int64(value[i]-'0')
	}
	h.Del(message.ContentLength)
	return n, nil
}
