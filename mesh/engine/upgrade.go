package engine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// halfClosed bounds how long the second direction of an upgraded connection goes on after the first has ended.
const halfClosed = 10 * time.Second

// switchProtocols joins the two connections after a 101 response and returns when both directions have ended.
func (x *Exchange) switchProtocols(ctx context.Context, res *http.Response) error {
	upstream, ok := res.Body.(io.ReadWriteCloser)
	if got := upgradeType(res.Header); !ok || x.upgrade == "" || !strings.EqualFold(got, x.upgrade) {
		_ = res.Body.Close()
		return fmt.Errorf("%w: it switched to protocol %q, the client asked for %q", ErrNoResponse, got, x.upgrade)
	}
	defer func() { _ = upstream.Close() }()
	x.body.stop(x.control)
	client, buffered, err := x.control.Hijack()
	if err != nil {
		return fmt.Errorf("%w: taking over the client's connection: %w", ErrNoResponse, err)
	}
	defer func() { _ = client.Close() }()
	x.hijacked.Store(true)
	if x.Place != nil {
		x.Place.Upgraded()
		defer x.Place.UpgradeEnded()
	}
	x.start(res.StatusCode)
	_ = client.SetDeadline(time.Time{})
	if err := writeSwitch(client, res.Header, x.upgrade); err != nil {
		return fmt.Errorf("%w: %w", cutError(ctx, ErrClientGone), err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = upstream.Close()
	})
	defer stop()
	// What the client sent right after its request is in the buffer. The rest comes from the connection itself: the buffered reader
	// ends the request's context at the end of the stream, which here is only the end of one direction.
	early, _ := buffered.Peek(buffered.Reader.Buffered())
	x.join(client, io.MultiReader(bytes.NewReader(early), client), upstream)
	if ctx.Err() != nil {
		return cutError(ctx, ctx.Err())
	}
	return nil
}

// writeSwitch writes the 101 response.
func writeSwitch(w io.Writer, h http.Header, protocol string) error {
	removeHopByHop(h)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{protocol}
	webSocketCase(h)
	buf := bufio.NewWriter(w)
	_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(buf)
	_, _ = buf.WriteString("\r\n")
	return buf.Flush()
}

// join copies in both directions. When one ends, its other side learns of it and the second direction may finish.
func (x *Exchange) join(client net.Conn, fromClient io.Reader, upstream io.ReadWriteCloser) {
	ended := make(chan struct{}, 2)
	go func() {
		x.pump(upstream, fromClient)
		closeWrite(upstream)
		ended <- struct{}{}
	}()
	go func() {
		x.pump(client, upstream)
		closeWrite(client)
		ended <- struct{}{}
	}()
	<-ended
	grace := time.AfterFunc(halfClosed, func() {
		_ = client.Close()
		_ = upstream.Close()
	})
	<-ended
	grace.Stop()
}

// closeWrite tells the peer that nothing more comes.
func closeWrite(c io.Closer) {
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return
	}
	_ = c.Close()
}

// pump copies one direction.
func (x *Exchange) pump(dst io.Writer, src io.Reader) {
	buf, _ := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
			x.Moved()
		}
		if err != nil {
			return
		}
	}
}
