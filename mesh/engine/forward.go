package engine

import (
	"errors"
	"io"
	"net/http"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

var errInformational = errors.New("too many informational responses")

// instanceBody is the body of an instance's response.
type instanceBody interface {
	// next returns bytes that hold until the following call; io.EOF at the end.
	next() ([]byte, error)
	// ready reports whether next would not wait.
	ready() bool
	// trailers are those after the end of the body; nil for none.
	trailers() *message.Header
}

// Forward sends the request to an instance and the response to the client. An error that wraps ErrCut came after the response had
// begun; before that the exchange is still open, and the caller may forward again (see Resendable) or Reply. The error of a cancelled
// exchange is its cause.
func (x *Exchange) Forward(up *Upstream, protocol Protocol) error {
	if protocol == H2C {
		return x.forwardH2(up)
	}
	c, err := up.get(x)
	if err != nil {
		return err
	}
	if err := x.attach(c); err != nil {
		c.close()
		return err
	}
	reusable, err := x.exchange(c)
	if x.detach() && reusable && err == nil {
		up.put(c)
	} else {
		c.close()
	}
	return err
}

// exchange sends the request on a connection and passes the response on. It reports whether the connection can be used again.
func (x *Exchange) exchange(c *instanceConn) (reusable bool, err error) {
	if err := x.sendRequest(c); err != nil {
		return false, x.noResponse(err)
	}
	framing, err := x.readResponse(c)
	if err != nil {
		x.stopSending()
		return false, x.noResponse(err)
	}
	if x.response.Status == http.StatusSwitchingProtocols {
		x.stopSending()
		return false, x.switchProtocols(c)
	}

	c.body.Reset(&c.reader, framing, x.response.Length)
	c.more()
	if err := x.respond(c, framing); err != nil {
		x.stopSending()
		return false, err
	}
	return x.stopSending() && !x.response.Close && c.body.Done(), nil
}

// maxInformational bounds the 1xx responses to one request.
const maxInformational = 100

// sendRequest sends the head, with the body in the same packet if all of it is there.
func (x *Exchange) sendRequest(c *instanceConn) error {
	framing := http1.None
	switch {
	case x.body.length > 0:
		framing = http1.Length
	case x.body.length < 0:
		framing = http1.Chunked
	case x.Request.Method == http.MethodPost || x.Request.Method == http.MethodPut || x.Request.Method == http.MethodPatch:
		framing = http1.Length // some servers insist on "Content-Length: 0"
	}
	x.Request.Length = x.body.length
	x.out = http1.AppendRequest(x.out[:0], &x.Request, framing)
	body, whole := x.body.whole()
	x.out = append(x.out, body...)
	x.Moved()
	if _, err := c.net.Write(x.out); err != nil {
		return err
	}
	if !whole {
		x.sendBody(c)
	}
	return nil
}

// readResponse reads the head of the final response and passes informational ones on.
func (x *Exchange) readResponse(c *instanceConn) (http1.Framing, error) {
	for range maxInformational {
		var framing http1.Framing
		var err error
		c.head, framing, err = http1.ReadResponse(&c.reader, c.head, maxResponse, x.Request.Method, &x.response)
		if err != nil {
			return framing, err
		}
		if x.response.Status >= 200 || x.response.Status == http.StatusSwitchingProtocols {
			return framing, nil
		}
		if x.response.Status == http.StatusContinue && !x.Request.Header.Has(message.Expect) {
			continue
		}
		if err := x.client.informational(&x.response); err != nil {
			return framing, err
		}
	}
	return http1.None, errInformational
}

// respond passes the final response on.
func (x *Exchange) respond(body instanceBody, framing http1.Framing) error {
	x.start(x.response.Status, framing)
	if err := x.client.begin(&x.response, framing); err != nil {
		return x.clientError(err)
	}
	for framing != http1.None {
		if !body.ready() {
			// What has come is sent on before waiting for more.
			if err := x.client.flush(); err != nil {
				return x.clientError(err)
			}
		}
		data, err := body.next()
		if len(data) > 0 {
			if err := x.client.write(data); err != nil {
				return x.clientError(err)
			}
			x.size += int64(len(data))
			x.Moved()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return x.cut(err)
		}
	}
	if err := x.client.finish(body.trailers()); err != nil {
		return x.clientError(err)
	}
	return nil
}
