package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

// halfClosed bounds how long the second direction of an upgraded connection goes on after the first has ended.
const halfClosed = 10 * time.Second

// upgradable is a client whose connection can be taken over.
type upgradable interface {
	// take returns the connection and what has been read of it already.
	take() (net.Conn, []byte)
}

// switchProtocols joins the two connections after a 101 response and returns when both directions have ended.
func (x *Exchange) switchProtocols(instance *instanceConn) error {
	client, ok := x.client.(upgradable)
	if got := x.response.Upgrade; !ok || x.Request.Upgrade == "" || !message.EqualFold(got, x.Request.Upgrade) {
		return fmt.Errorf("%w: it switched to protocol %q, the client asked for %q", ErrNoResponse, got, x.Request.Upgrade)
	}
	conn, early := client.take()
	defer func() { _ = conn.Close() }()
	if x.Place != nil {
		x.Place.Upgraded()
		defer x.Place.UpgradeEnded()
	}
	x.start(x.response.Status, http1.None)
	x.response.Upgrade = x.Request.Upgrade
	x.out = http1.AppendResponse(x.out[:0], &x.response, http1.None, http1.KeepAlive)
	if _, err := conn.Write(x.out); err != nil {
		return x.clientError(err)
	}
	stop := context.AfterFunc(x.Context(), func() {
		_ = conn.Close()
		_ = instance.net.Close()
	})
	defer stop()
	x.join(conn, early, instance)
	if cause := x.Cause(); cause != nil {
		return x.cut(cause)
	}
	return nil
}

// join copies in both directions. When one ends, its other side learns of it and the second direction may finish.
func (x *Exchange) join(client net.Conn, early []byte, instance *instanceConn) {
	late := append([]byte(nil), instance.reader.Buffered()...)
	ended := make(chan struct{}, 2)
	go func() {
		x.pump(instance.net, client, early)
		closeWrite(instance.net)
		ended <- struct{}{}
	}()
	go func() {
		x.pump(client, instance.net, late)
		closeWrite(client)
		ended <- struct{}{}
	}()
	<-ended
	grace := time.AfterFunc(halfClosed, func() {
		_ = client.Close()
		_ = instance.net.Close()
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

// pump copies one direction, after what has been read of it already.
func (x *Exchange) pump(dst io.Writer, src io.Reader, first []byte) {
	if len(first) > 0 {
		if _, err := dst.Write(first); err != nil {
			return
		}
	}
	buf := lendCopy()
	defer copyBuffers.Put(buf)
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
