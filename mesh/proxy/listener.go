package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/mesh/certificate"
	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/engine"
)

// retryInterval is the pause between attempts to open listeners that were rejected.
const retryInterval = time.Second

// listener is one open socket. Its visibility can change while it is open.
type listener struct {
	address    string
	visibility atomic.Int32
	// transport is how its connections begin.
	transport transport
	socket    net.Listener
	server    *engine.Server
}

// transport is what a listener expects below HTTP.
type transport struct {
	protocol config.Listener_Protocol
	oldest   config.TLSVersion
}

func transportOf(c *config.Listener) transport {
	if c.GetProtocol() == config.Listener_HTTP {
		return transport{} // A version of TLS has no meaning there.
	}
	return transport{protocol: c.GetProtocol(), oldest: c.GetMinTlsVersion()}
}

// listeners are the open sockets by address, and the configuration that they come from.
type listeners struct {
	proxy *Proxy
	base  context.Context //nolint:containedctx // requests descend from it; it ends when the proxy has stopped
	log   *slog.Logger
	// certificates are what HTTPS listeners present.
	certificates *certificate.Table
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

// newListeners returns those of a proxy, which open none yet.
func newListeners(base context.Context, p *Proxy) *listeners {
	ls := &listeners{
		proxy: p, base: base, log: p.log, certificates: p.certificates, drain: p.drain,
		wanted: make(map[string]*config.Listener), open: make(map[string]*listener),
		handed: &listener{address: "captured connections"},
	}
	ls.handed.visibility.Store(int32(config.Visibility_CLUSTER_LOCAL))
	ls.equip(ls.handed)
	return ls
}

// equip gives a listener its server.
func (ls *listeners) equip(l *listener) {
	l.server = engine.NewServer(engine.Options{
		Base: ls.base, Log: ls.log,
		Handler: func() engine.Handler { return &session{proxy: ls.proxy, listener: l} },
	})
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
	opened, err := ls.openMissing(byAddress)
	if err != nil {
		return err
	}
	ls.wanted = wanted
	for _, l := range opened {
		if replaced := ls.open[l.address]; replaced != nil {
			ls.retire(replaced)
		}
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

// openMissing opens a socket for each address that has none with the transport asked for. The caller holds mu.
func (ls *listeners) openMissing(byAddress map[string]*config.Listener) ([]*listener, error) {
	var opened []*listener
	for address, l := range byAddress {
		present := ls.open[address]
		if present != nil && present.transport == transportOf(l) {
			continue
		}
		socket, err := ls.bind(address, present)
		if err != nil {
			for _, o := range opened {
				_ = o.socket.Close()
			}
			return nil, fmt.Errorf("opening listener %q: %w", l.GetName(), err)
		}
		opened = append(opened, &listener{address: address, transport: transportOf(l), socket: socket})
	}
	return opened, nil
}

// bind opens a socket, or, where one with another transport is open at the address, shares it, so that nobody who connects meanwhile is
// refused.
func (ls *listeners) bind(address string, present *listener) (net.Listener, error) {
	if present == nil {
		return listen(ls.base, address)
	}
	socket, ok := present.socket.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("the socket at %s cannot be shared", address)
	}
	file, err := socket.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return net.FileListener(file)
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
	ls.log.Info("listening", "address", l.address, "protocol", l.transport.protocol.String(),
		"visibility", config.Visibility(l.visibility.Load()).String())
	ls.serving.Go(func() {
		var err error
		if l.transport.protocol == config.Listener_HTTPS {
			err = l.server.ServeTLS(l.socket, ls.tlsConfig(l.transport.oldest))
		} else {
			err = l.server.Serve(l.socket)
		}
		if err != nil {
			ls.log.Error("serving", "address", l.address, "error", err)
		}
	})
}

// tlsConfig leaves cipher suites and curves to crypto/tls, whose choice is the newest that is sound.
func (ls *listeners) tlsConfig(oldest config.TLSVersion) *tls.Config {
	version := uint16(tls.VersionTLS12)
	if oldest == config.TLSVersion_TLS_1_3 {
		version = tls.VersionTLS13
	}
	return &tls.Config{MinVersion: version, GetCertificate: ls.certificates.Certificate}
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
	if p := l.GetProtocol(); p != config.Listener_HTTP && p != config.Listener_HTTPS {
		return fmt.Errorf("protocol %s is unknown", p)
	}
	if v := l.GetMinTlsVersion(); v != config.TLSVersion_TLS_1_2 && v != config.TLSVersion_TLS_1_3 {
		return fmt.Errorf("TLS version %s is unknown", v)
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
