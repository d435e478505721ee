// Package relay carries TCP connections from an address of the pods' bridge to the API server on loopback. Package embedded runs it:
// EndpointSlices may not name loopback addresses, and the API server binds only one. It imports no other package of Weft.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Relay forwards connections.
type Relay struct {
	listener net.Listener
	target   string
	log      *slog.Logger
}

// Listen binds address, which need not exist yet: the bridge that carries it is made later by the node agent.
func Listen(ctx context.Context, address, target string, log *slog.Logger) (*Relay, error) {
	config := net.ListenConfig{Control: freebind}
	listener, err := config.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s for pods: %w", address, err)
	}
	return &Relay{listener: listener, target: target, log: log}, nil
}

// Addr is where the relay listens.
func (r *Relay) Addr() net.Addr { return r.listener.Addr() }

// Close stops listening. It is for a Relay that never runs; Run closes by itself.
func (r *Relay) Close() error { return r.listener.Close() }

// Run forwards until ctx ends, then closes all connections.
func (r *Relay) Run(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { _ = r.listener.Close() })
	defer stop()
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting connection of a pod: %w", err)
		}
		conns.Go(func() {
			if err := r.forward(ctx, conn); err != nil && ctx.Err() == nil {
				r.log.Debug("relaying connection to the API server", "from", conn.RemoteAddr().String(), "error", err)
			}
		})
	}
}

func (r *Relay) forward(ctx context.Context, down net.Conn) error {
	defer func() { _ = down.Close() }()
	up, err := (&net.Dialer{}).DialContext(ctx, "tcp4", r.target)
	if err != nil {
		return fmt.Errorf("dialing the API server: %w", err)
	}
	defer func() { _ = up.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = down.Close(), up.Close() })
	defer stop()
	answered := make(chan error, 1)
	go func() { answered <- pipe(down, up) }()
	return errors.Join(pipe(up, down), <-answered)
}

// pipe copies one direction and passes the end of the stream on. Copying between TCP connections stays in the kernel.
func pipe(dst, src net.Conn) error {
	_, err := io.Copy(dst, src)
	if half, ok := dst.(*net.TCPConn); ok && err == nil {
		return half.CloseWrite()
	}
	// A broken direction ends the other one too.
	return errors.Join(err, dst.Close(), src.Close())
}

func freebind(_, _ string, raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	}); err != nil {
		return err
	}
	return failed
}
