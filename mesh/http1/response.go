package http1

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/weft-dev/weft/mesh/message"
)

// errResponse wraps what is wrong with a response.
var errResponse = errors.New("malformed response")

// ReadResponse reads the head of a response to a request of the given method, an informational one or the final one. See ReadRequest.
// Body tells how to read what follows.
func ReadResponse(r *Reader, buf []byte, limit int, method string, res *message.Response) (out []byte, body Framing, err error) {
	res.Reset()
	buf, err = readHead(r, buf[:0], limit)
	if err != nil {
		return buf, None, err
	}
	line, fields, err := nextLine(buf)
	if err != nil {
		return buf, None, err
	}
	if err := parseStatusLine(line, res); err != nil {
		return buf, None, err
	}
	if err := parseFields(fields, &res.Header); err != nil {
		return buf, None, err
	}
	body, err = finishResponse(res, method)
	return buf, body, err
}

func parseStatusLine(line []byte, res *message.Response) error {
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return errResponse
	}
	switch line[7] {
	case '1':
		res.Minor = 1
	case '0':
	default:
		return errResponse
	}
	res.Major = 1
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return errResponse
		}
		res.Status = 10*res.Status + int(c-'0')
	}
	if res.Status < 100 {
		return errResponse
	}
	if len(line) > 13 {
		reason := line[13:]
		if !all(reason, valueByte) {
			return errResponse
		}
		res.Reason = text(reason)
	}
	return nil
}

// Framing is how the end of a body is found.
type Framing uint8

// The framings.
const (
	None Framing = iota
	Length
	Chunked
	UntilClose
)

func finishResponse(res *message.Response, method string) (Framing, error) {
	h := &res.Header
	if err := checkNamed(h); err != nil {
		return None, err
	}
	res.Close = h.Token(message.Connection, "close") || (res.Minor == 0 && !h.Token(message.Connection, "keep-alive"))
	res.Upgrade = h.UpgradeType()
	res.Trailers = h.Joined(message.Trailer)
	chunked := h.Has(message.TransferEncoding)
	switch {
	case res.Status < 200 || res.Status == http.StatusNoContent:
		// Whatever the header says, there is none.
		h.Del(message.ContentLength)
		h.RemoveHopByHop()
		return None, nil
	case res.Status == http.StatusNotModified || method == http.MethodHead:
		length, err := framing(h, res.Minor, false)
		res.Length = length
		h.RemoveHopByHop()
		return None, err
	}
	length, err := framing(h, res.Minor, false)
	if err != nil {
		return None, err
	}
	res.Length = length
	h.RemoveHopByHop()
	switch {
	case chunked:
		return Chunked, nil
	case length > 0:
		return Length, nil
	case length == 0:
		return None, nil
	}
	res.Close = true
	return UntilClose, nil
}
