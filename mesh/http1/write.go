package http1

import (
	"net/http"
	"strconv"

	"github.com/weft-dev/weft/mesh/message"
)

// AppendRequest appends the head of a request to dst. The caller says how the body is framed; Length takes the request's.
func AppendRequest(dst []byte, req *message.Request, body Framing) []byte {
	dst = append(dst, req.Method...)
	dst = append(dst, ' ')
	dst = append(dst, req.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, req.Host...)
	dst = append(dst, crlf...)
	dst = appendFields(dst, &req.Header)
	if req.TrailersWanted {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	if req.Upgrade != "" {
		dst = appendUpgrade(dst, req.Upgrade)
	}
	dst = appendTrailerNames(dst, body, req.Trailers)
	dst = appendFraming(dst, body, req.Length)
	return append(dst, crlf...)
}

// appendTrailerNames announces the trailers of a body that can have some.
func appendTrailerNames(dst []byte, body Framing, names string) []byte {
	if names == "" || body != Chunked {
		return dst
	}
	dst = append(dst, "Trailer: "...)
	dst = append(dst, names...)
	return append(dst, crlf...)
}

// Ending says what becomes of the connection after a response.
type Ending uint8

// The endings.
const (
	// KeepAlive is HTTP/1.1's default.
	KeepAlive Ending = iota
	// KeepAliveSaid is for a client of HTTP/1.0 that asked for it.
	KeepAliveSaid
	// Close ends it.
	Close
)

// AppendResponse appends the head of a response to dst. Length takes the response's; None writes no field about the body.
func AppendResponse(dst []byte, res *message.Response, body Framing, ending Ending) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(res.Status), 10)
	dst = append(dst, ' ')
	if res.Reason != "" {
		dst = append(dst, res.Reason...)
	} else {
		dst = append(dst, http.StatusText(res.Status)...)
	}
	dst = append(dst, crlf...)
	dst = appendFields(dst, &res.Header)
	dst = appendTrailerNames(dst, body, res.Trailers)
	dst = appendFraming(dst, body, res.Length)
	switch {
	case res.Status == http.StatusSwitchingProtocols:
		dst = appendUpgrade(dst, res.Upgrade)
	case res.Status < 200:
	case ending == Close:
		dst = append(dst, "Connection: close\r\n"...)
	case ending == KeepAliveSaid:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, crlf...)
}

func appendUpgrade(dst []byte, protocol string) []byte {
	dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
	dst = append(dst, protocol...)
	return append(dst, crlf...)
}

func appendFields(dst []byte, h *message.Header) []byte {
	fields := h.Fields()
	for i := range fields {
		f := &fields[i]
		dst = append(dst, f.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, f.Value...)
		dst = append(dst, crlf...)
	}
	return dst
}

func appendFraming(dst []byte, body Framing, length int64) []byte {
	switch body {
	case Length:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, length, 10)
		return append(dst, crlf...)
	case Chunked:
		return append(dst, "Transfer-Encoding: chunked\r\n"...)
	case None, UntilClose:
	}
	return dst
}

// AppendChunk appends the line before a chunk of n bytes. After the data comes CRLF, see ChunkEnd.
func AppendChunk(dst []byte, n int) []byte {
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, crlf...)
}

// ChunkEnd ends the data of a chunk.
const ChunkEnd = "\r\n"

// AppendLastChunk appends the end of a chunked body, with trailers if there are any.
func AppendLastChunk(dst []byte, trailers *message.Header) []byte {
	dst = append(dst, "0\r\n"...)
	if trailers != nil {
		dst = appendFields(dst, trailers)
	}
	return append(dst, crlf...)
}
