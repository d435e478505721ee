package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/engine"
)

// retryInterval is the pause between attempts to open listeners that were rejected.
const retryInterval = time.Second

// listener is one open socket. Its visibility can change while it is open.
type listener struct {
	address    string
	visibility atomic.Int32
	socket     net.Listener
	server     *engine.Server
}

// listeners are the open sockets by address, and the configuration that they come from.
type listeners struct {
	handle func(l *listener, w http.ResponseWriter, r *http.Request)
	base   context.Context //nolint:containedctx // requests descend from it; it ends when the proxy has stopped
	log    *slog.Logger
	// drain bounds how long requests of a listener that was removed may go on.
	drain time.Duration

	// mu guards the rest.
	mu     sync.Mutex
	closed bool
	wanted map[string]*config.Listener
	open   map[string]*listener
	// rejected is the last change that failed; it is tried again until it works or another change supersedes it.
	rejected func() error
	// serving counts the goroutines of all listeners.
	serving sync.WaitGroup
	// handed serves the connections of pods that were accepted elsewhere. It has no socket.
	handed *listener
}

func newListeners(base context.Context, log *slog.Logger, drain time.Duration, handle func(*listener, http.ResponseWriter, *http.Request)) *listeners {
	ls := &listeners{
		handle: handle, base: base, log: log, drain: drain, wanted: make(map[string]*config.Listener), open: make(map[string]*listener),
		handed: &listener{address: "captured connections"},
	}
	ls.handed.visibility.Store(int32(config.Visibility_CLUSTER_LOCAL))
	ls.equip(ls.handed)
	return ls
}

// equip gives a listener its server.
func (ls *listeners) equip(l *listener) {
	l.server = engine.NewServer(ls.base, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ls.handle(l, w, r) }), ls.log)
}

// change opens what is new before it closes what is gone, and either does all of it or nothing.
func (ls *listeners) change(upserts []*config.Listener, removed []string) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.rejected = nil
	err := ls.try(upserts, removed)
	if err != nil {
		ls.rejected = func() error { return ls.try(upserts, removed) }
	}
	return err
}

// try does a change. The caller holds mu.
func (ls *listeners) try(upserts []*config.Listener, removed []string) error {
	if ls.closed {
		return errors.New("the proxy is stopping")
	}
	wanted := make(map[string]*config.Listener, len(ls.wanted)+len(upserts))
	maps.Copy(wanted, ls.wanted)
	for _, name := range removed {
		delete(wanted, name)
	}
	for _, l := range upserts {
		wanted[l.GetName()] = l
	}
	byAddress := make(map[string]*config.Listener, len(wanted))
	for _, l := range wanted {
		address := net.JoinHostPort(l.GetAddress(), strconv.Itoa(int(l.GetPort())))
		if other, taken := byAddress[address]; taken {
			return fmt.Errorf("listeners %q and %q have the same address %s", other.GetName(), l.GetName(), address)
		}
		byAddress[address] = l
	}
	var opened []*listener
	for address, l := range byAddress {
		if ls.open[address] != nil {
			continue
		}
		socket, err := listen(ls.base, address)
		if err != nil {
			for _, o := range opened {
				_ = o.socket.Close()
			}
			return fmt.Errorf("opening listener %q: %w", l.GetName(), err)
		}
		opened = append(opened, &listener{address: address, socket: socket})
	}
	ls.wanted = wanted
	for _, l := range opened {
		ls.open[l.address] = l
	}
	for address, l := range ls.open {
		c, ok := byAddress[address]
		if !ok {
			delete(ls.open, address)
			ls.retire(l)
			continue
		}
		l.visibility.Store(int32(c.GetVisibility()))
	}
	for _, l := range opened {
		ls.serve(l)
	}
	return nil
}

// listen opens a socket. An address that the machine does not have yet is no error: the bridge of the pods may come later.
func listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failure error
		if err := c.Control(func(fd uintptr) {
			failure = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}); err != nil {
			return err
		}
		return failure
	}}
	return lc.Listen(ctx, "tcp", address)
}

// serve begins to accept. The caller holds mu.
func (ls *listeners) serve(l *listener) {
	ls.equip(l)
	ls.log.Info("listening", "address", l.address, "visibility", config.Visibility(l.visibility.Load()).String())
	ls.serving.Go(func() {
		if err := l.server.Serve(l.socket); err != nil {
			ls.log.Error("serving", "address", l.address, "error", err)
		}
	})
}

// retire stops accepting at once and lets requests end. The caller holds mu.
func (ls *listeners) retire(l *listener) {
	ls.log.Info("listener removed", "address", l.address)
	ls.serving.Go(func() { ls.shutdown(l) })
}

func (ls *listeners) shutdown(l *listener) {
	ctx, cancel := context.WithTimeout(ls.base, ls.drain)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		_ = l.server.Close()
	}
}

// retry tries a rejected change again until ctx ends.
func (ls *listeners) retry(ctx context.Context) {
	ticker := time.NewTicker(retryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		ls.mu.Lock()
		if ls.rejected != nil {
			if err := ls.rejected(); err == nil {
				ls.rejected = nil
				ls.log.Info("listeners that were rejected are open now")
			}
		}
		ls.mu.Unlock()
	}
}

// close stops accepting on all listeners and waits until their requests have ended or the drain time is over.
func (ls *listeners) close() {
	ls.mu.Lock()
	if !ls.closed {
		ls.serving.Go(func() { ls.shutdown(ls.handed) })
	}
	ls.closed = true
	for address, l := range ls.open {
		delete(ls.open, address)
		ls.retire(l)
	}
	ls.mu.Unlock()
	ls.serving.Wait()
}

// addresses are the addresses of the open sockets by the name of the listener.
func (ls *listeners) addresses() map[string]string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	out := make(map[string]string, len(ls.wanted))
	for name, c := range ls.wanted {
		if l := ls.open[net.JoinHostPort(c.GetAddress(), strconv.Itoa(int(c.GetPort())))]; l != nil {
			out[name] = l.socket.Addr().String()
		}
	}
	return out
}

func validListener(l *config.Listener) error {
	if l.GetAddress() != "" {
		if _, err := netip.ParseAddr(l.GetAddress()); err != nil {
			return fmt.Errorf("reading listener address: %w", err)
		}
	}
	if l.GetPort() > 65535 {
		return fmt.Errorf("port %d is out of range", l.GetPort())
	}
	if l.GetProtocol() != config.Listener_HTTP {
		return fmt.Errorf("protocol %s needs a certificate, and the configuration has none", l.GetProtocol())
	}
	return nil
}

func (p *Proxy) applyListeners(upserts []config.Resource, removed []string) error {
	typed, err := cast(upserts, validListener)
	if err != nil {
		return err
	}
	return p.listeners.change(typed, removed)
}
