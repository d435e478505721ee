package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

// forwarder connects to ports inside one network namespace.
type forwarder struct{ netns string }

var _ portforward.PortForwarder = forwarder{}

// PortForward copies between a stream of a request and a port of the pod's own loopback, so that servers that listen only there are
// reached too.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close() //nolint:errcheck // nothing is sent any more
	conn, err := dialIn(ctx, f.netns, port)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // see above
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite() // the server may still answer
		}
		sent <- err
	}()
	_, err = io.Copy(stream, conn)
	if err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("forwarding port %d: %w", port, err)
	}
	return nil
}

// dialIn connects from inside a network namespace. A socket stays in the namespace in which it was made, so that only making it has
// to happen there: on a thread that is not used again.
func dialIn(ctx context.Context, netns string, port int32) (net.Conn, error) {
	ns, err := os.Open(netns)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	defer ns.Close() //nolint:errcheck // read only
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("entering the network namespace: %w", err)}
			return
		}
		var d net.Dialer
		var errs []error
		for _, host := range []string{"127.0.0.1", "::1"} {
			conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
			if err == nil {
				done <- result{conn: conn}
				return
			}
			errs = append(errs, err)
		}
		done <- result{err: fmt.Errorf("failed to connect to localhost:%d inside namespace: %w", port, errors.Join(errs...))}
	}()
	r := <-done
	return r.conn, r.err
}
