package engine

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchInterval is how often a connection is asked whether its client is still there.
const watchInterval = 500 * time.Millisecond

// connKey is the context key of the connection that a request came on.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// Watched reports whether the request's context ends when the client leaves. Over HTTP/1 net/http notices that only after the whole
// body has been read, which it is not while a request is parked.
func (x *Exchange) Watched() bool { return x.Request.ProtoMajor != 1 || x.body.complete() }

// OnClientGone calls gone, once and from another goroutine, when the client of a request that is not Watched has left. Stop ends the
// watch and waits for a call in progress.
func (x *Exchange) OnClientGone(gone func()) (stop func()) {
	conn, ok := socketOf(x.Request.Context().Value(connKey{})).(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return func() {}
	}
	w := &watch{raw: raw, gone: gone}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(watchInterval, w.look)
	return w.stop
}

// socketOf is the connection below TLS.
func socketOf(conn any) any {
	if below, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return below.NetConn()
	}
	return conn
}

// watch looks at a connection again and again. An event would be nicer, but the runtime's poller has none for a peer that has closed
// behind data that nobody has read yet.
type watch struct {
	raw  syscall.RawConn
	gone func()

	// mu guards the rest.
	mu    sync.Mutex
	timer *time.Timer
	done  bool
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	if closed(w.raw) {
		w.done = true
		w.gone()
		return
	}
	w.timer.Reset(watchInterval)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.timer.Stop()
}

// closed reports whether the peer has closed its side.
func closed(raw syscall.RawConn) bool {
	events := int16(0)
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, 0); err == nil && n == 1 {
			events = fds[0].Revents
		}
	})
	return err != nil || events&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
