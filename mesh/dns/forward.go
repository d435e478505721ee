package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// Errors of a query that no upstream has answered.
var (
	errNoUpstream = errors.New("the machine has no name server")
	errBusy       = errors.New("too many queries are waiting")
)

// recheck is the time for which the machine's resolver configuration is taken as unchanged.
const recheck = 5 * time.Second

// forwarder asks upstream name servers.
type forwarder struct {
	fixed   []netip.AddrPort
	path    string
	own     []netip.AddrPort
	gateway netip.Addr
	timeout time.Duration
	cache   *cache
	// slots holds a token per query that waits.
	slots chan struct{}

	// mu guards the rest.
	mu      sync.Mutex
	servers []netip.AddrPort
	modTime time.Time
	checked time.Time
}

func newForwarder(opts Options) *forwarder {
	return &forwarder{
		fixed: opts.Upstreams, path: opts.ResolvConf, own: opts.Listen, gateway: opts.Gateway, timeout: opts.Timeout,
		cache: newCache(opts.CacheSize), slots: make(chan struct{}, opts.MaxForwards),
	}
}

// exchange answers a query from the cache or from the first upstream that can. The EDNS record of an upstream, which is between it and
// us, is taken out.
func (f *forwarder) exchange(ctx context.Context, network string, query *mdns.Msg) (*mdns.Msg, error) {
	key := questionOf(query)
	if message := f.cache.get(key); message != nil {
		return message, nil
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, errBusy
	}
	last := errNoUpstream
	var failed *mdns.Msg
	for _, server := range f.upstreams() {
		message, err := f.ask(ctx, network, server, query)
		if err != nil {
			last = fmt.Errorf("asking %s: %w", server, err)
			continue
		}
		message.Extra = slices.DeleteFunc(message.Extra, func(rr mdns.RR) bool { return rr.Header().Rrtype == mdns.TypeOPT })
		if message.Rcode == mdns.RcodeServerFailure || message.Rcode == mdns.RcodeRefused {
			failed = message
			continue
		}
		f.cache.put(key, message)
		return message, nil
	}
	if failed != nil {
		return failed, nil
	}
	return nil, last
}

// ask sends a query by the transport that the client used: one who came by TCP wants an answer that UDP may not carry.
func (f *forwarder) ask(ctx context.Context, network string, server netip.AddrPort, query *mdns.Msg) (*mdns.Msg, error) {
	client := &mdns.Client{Net: network, Timeout: f.timeout, UDPSize: udpSize}
	query.Id = mdns.Id()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	message, _, err := client.ExchangeContext(ctx, query, server.String())
	if err != nil {
		return nil, err
	}
	if len(message.Question) != 1 || mdns.CanonicalName(message.Question[0].Name) != mdns.CanonicalName(query.Question[0].Name) {
		return nil, errors.New("answer is to another question")
	}
	return message, nil
}

// upstreams are the fixed ones, or those of the machine's resolver configuration as it is now.
func (f *forwarder) upstreams() []netip.AddrPort {
	if len(f.fixed) > 0 {
		return f.fixed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.checked) < recheck {
		return f.servers
	}
	f.checked = now
	info, err := os.Stat(f.path)
	if err != nil {
		f.servers = nil
		return nil
	}
	if info.ModTime().Equal(f.modTime) {
		return f.servers
	}
	f.modTime = info.ModTime()
	f.servers = readResolvConf(f.path, f.loops)
	return f.servers
}

// loops says whether asking an address would be asking ourselves.
func (f *forwarder) loops(server netip.AddrPort) bool {
	if server.Addr() == f.gateway {
		return true
	}
	return slices.ContainsFunc(f.own, func(own netip.AddrPort) bool {
		return own.Port() == server.Port() && (own.Addr() == server.Addr() || own.Addr().IsUnspecified() && server.Addr().IsLoopback())
	})
}

// readResolvConf lists the name servers of a file, without those to leave out. A file that cannot be read has none.
func readResolvConf(path string, leaveOut func(netip.AddrPort) bool) []netip.AddrPort {
	conf, err := mdns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(conf.Port, 10, 16)
	if err != nil {
		return nil
	}
	var servers []netip.AddrPort
	for _, name := range conf.Servers {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			continue
		}
		if server := netip.AddrPortFrom(addr, uint16(port)); !leaveOut(server) {
			servers = append(servers, server)
		}
	}
	return servers
}
