package filter

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/weft-dev/weft/activator"
	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/message"
)

// Error is a refusal of the proxy's own: the status and the text that the client gets.
type Error struct {
	Status int
	Text   string
	// RetryAfter in seconds; zero sends no such header.
	RetryAfter int
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Refuse returns an Error.
func Refuse(status int, text string) *Error { return &Error{Status: status, Text: text} }

// Explain says which response an error of the path becomes. It returns nil when nobody is there to read one.
func Explain(err error) *Error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, activator.ErrQueueFull):
		return &Error{Status: http.StatusServiceUnavailable, Text: activator.ErrQueueFull.Error(), RetryAfter: 1}
	case errors.Is(err, engine.ErrNotConnected):
		return Refuse(http.StatusBadGateway, "no instance accepted the connection")
	case errors.Is(err, activator.ErrNoEndpoint):
		return Refuse(http.StatusServiceUnavailable, "no instance is ready")
	case errors.Is(err, engine.ErrNoResponse):
		return Refuse(http.StatusBadGateway, "the instance closed the connection without a valid response")
	case errors.Is(err, context.Canceled), errors.Is(err, engine.ErrClientGone):
		return nil
	}
	return Refuse(http.StatusInternalServerError, "internal error")
}

// Codes of gRPC (https://grpc.io/docs/guides/status-codes/).
const (
	grpcUnknown          = 2
	grpcDeadlineExceeded = 4
	grpcUnimplemented    = 12
	grpcUnavailable      = 14
)

// Answer sends an Error to the client. A gRPC client gets it in its own terms, as a response of trailers only.
func Answer(x *Exchange, e *Error) error {
	if e.RetryAfter > 0 {
		x.Header.Set(message.RetryAfter, strconv.Itoa(e.RetryAfter))
	}
	if contentType := grpcType(x); contentType != "" {
		grpcStatus(&x.Header, e)
		return x.ReplyEmpty(http.StatusOK, contentType)
	}
	return x.Reply(e.Status, "text/plain; charset=utf-8", e.Text+"\n")
}

// Conclude ends a response that has begun with an Error, in its trailers or as the last of its text, and reports whether it could: if
// not, the response must be cut.
func Conclude(x *Exchange, e *Error) bool {
	if grpcType(x) == "" {
		return x.Conclude(e.Text+"\n", nil)
	}
	var trailers message.Header
	grpcStatus(&trailers, e)
	return x.Conclude("", &trailers)
}

func grpcStatus(h *message.Header, e *Error) {
	h.Append("Grpc-Status", strconv.Itoa(grpcCode(e.Status)))
	h.Append("Grpc-Message", e.Text)
}

// grpcType is the content type of a gRPC request, empty for any other.
func grpcType(x *Exchange) string {
	if t := x.Request.Header.Get(message.ContentType); x.Request.Major == 2 && strings.HasPrefix(t, "application/grpc") {
		return t
	}
	return ""
}

func grpcCode(status int) int {
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return grpcUnimplemented
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return grpcUnavailable
	case http.StatusGatewayTimeout:
		return grpcDeadlineExceeded
	}
	return grpcUnknown
}
