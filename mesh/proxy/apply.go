package proxy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/filter/accesslog"
)

// Apply takes a change of one type of resource into use. It returns when new requests see it; an error means that nothing of it was
// taken. Types that are not the proxy's are ignored. Calls are serialised.
func (p *Proxy) Apply(typeURL string, upserts []config.Resource, removed []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	switch typeURL {
	case config.EndpointsType:
		err = applyEach(upserts, removed, validEndpoints, p.setEndpoints, p.removeEndpoints)
	case config.BackendType:
		err = applyEach(upserts, removed, validBackend, p.setBackend, p.removeBackend)
	case config.CertificateType:
		err = p.applyCertificates(upserts, removed)
	case config.RouteType:
		err = p.applyRoutes(upserts, removed)
	case config.AccessLogType:
		err = applyEach(upserts, removed, validAccessLog, p.setAccessLog, func(string) { p.accessLog.Off() })
	case config.ListenerType:
		err = p.applyListeners(upserts, removed)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	p.remember(typeURL, upserts, removed)
	return nil
}

// applyEach checks all resources before it takes the first.
func applyEach[T config.Resource](upserts []config.Resource, removed []string, valid func(T) error, set func(T), remove func(string)) error {
	typed, err := cast(upserts, valid)
	if err != nil {
		return err
	}
	for _, r := range typed {
		set(r)
	}
	for _, name := range removed {
		remove(name)
	}
	return nil
}

func cast[T config.Resource](upserts []config.Resource, valid func(T) error) ([]T, error) {
	typed := make([]T, 0, len(upserts))
	for _, r := range upserts {
		t, ok := r.(T)
		if !ok {
			return nil, fmt.Errorf("resource %q has type %T", r.GetName(), r)
		}
		if err := valid(t); err != nil {
			return nil, fmt.Errorf("resource %q: %w", r.GetName(), err)
		}
		typed = append(typed, t)
	}
	return typed, nil
}

func validEndpoints(e *config.Endpoints) error {
	for _, ep := range e.GetEndpoints() {
		if _, err := netip.ParseAddr(ep.GetAddress()); err != nil {
			return fmt.Errorf("reading endpoint address: %w", err)
		}
		if ep.GetPort() == 0 || ep.GetPort() > 65535 {
			return fmt.Errorf("endpoint %s: port %d is out of range", ep.GetAddress(), ep.GetPort())
		}
	}
	return nil
}

func validBackend(b *config.Backend) error {
	if b.GetName() == "" {
		return fmt.Errorf("name is empty")
	}
	return nil
}

func validAccessLog(l *config.AccessLog) error { return accesslog.Parse(l.GetTemplate()) }

func (p *Proxy) setAccessLog(l *config.AccessLog) {
	// It has been checked.
	_ = p.accessLog.Set(l.GetTemplate(), l.GetProbes())
}

// setEndpoints and the like are called with mu held.
func (p *Proxy) setEndpoints(e *config.Endpoints) {
	b, ok := p.withEndpoints[e.GetName()]
	if !ok {
		b = p.backends.retain(e.GetName())
		p.withEndpoints[e.GetName()] = b
	}
	b.update(e.GetEndpoints())
}

func (p *Proxy) removeEndpoints(name string) {
	b, ok := p.withEndpoints[name]
	if !ok {
		return
	}
	delete(p.withEndpoints, name)
	b.update(nil)
	p.backends.release(b)
}

func (p *Proxy) setBackend(c *config.Backend) {
	b, ok := p.defined[c.GetName()]
	if !ok {
		b = p.backends.retain(c.GetName())
		p.defined[c.GetName()] = b
	}
	b.define(c)
}

func (p *Proxy) removeBackend(name string) {
	b, ok := p.defined[name]
	if !ok {
		return
	}
	delete(p.defined, name)
	b.undefine()
	p.backends.release(b)
}

func (p *Proxy) applyCertificates(upserts []config.Resource, removed []string) error {
	typed, err := cast(upserts, func(*config.Certificate) error { return nil })
	if err != nil {
		return err
	}
	return p.certificates.Apply(typed, removed)
}

// installed is what one Route resource has put into the host table.
type installed struct {
	hosts    map[hostKey]*virtualHost
	backends []*backend
}

func validRoute(r *config.Route) error {
	for _, v := range r.GetVirtualHosts() {
		for _, host := range v.GetHosts() {
			if host == "" || host != normalize(host) || strings.Contains(strings.TrimPrefix(host, "*."), "*") {
				return fmt.Errorf("host %q must be in lower case, without port, with at most a leading \"*.\"", host)
			}
		}
	}
	return nil
}

// applyRoutes changes the host table once for all routes of the call, so that requests see all of it or nothing.
func (p *Proxy) applyRoutes(upserts []config.Resource, removed []string) error {
	routes, err := cast(upserts, validRoute)
	if err != nil {
		return err
	}
	touched := make(map[hostKey]*virtualHost)
	var replaced []*installed
	for _, r := range routes {
		next := p.install(r, touched)
		replaced = append(replaced, p.uninstall(r.GetName(), touched))
		p.routes[r.GetName()] = next
	}
	for _, name := range removed {
		replaced = append(replaced, p.uninstall(name, touched))
		delete(p.routes, name)
	}
	for key := range touched {
		touched[key] = p.claims.winner(key)
	}
	p.hosts.Store(p.hosts.Load().with(touched))
	for _, old := range replaced {
		if old == nil {
			continue
		}
		for _, b := range old.backends {
			p.backends.release(b)
		}
	}
	return nil
}

// install claims the hosts of a route.
func (p *Proxy) install(r *config.Route, touched map[hostKey]*virtualHost) *installed {
	in := &installed{hosts: make(map[hostKey]*virtualHost)}
	for _, v := range r.GetVirtualHosts() {
		host := compileHost(r.GetName(), v, func(name string) *backend {
			b := p.backends.retain(name)
			in.backends = append(in.backends, b)
			return b
		})
		for _, name := range v.GetHosts() {
			key := hostKey{v.GetVisibility(), name}
			if _, twice := in.hosts[key]; twice {
				continue
			}
			in.hosts[key] = host
			p.claims.add(key, host)
			touched[key] = nil
		}
	}
	return in
}

// uninstall gives up the claims of the route's former version and returns it, or nil if there was none.
func (p *Proxy) uninstall(name string, touched map[hostKey]*virtualHost) *installed {
	old, ok := p.routes[name]
	if !ok {
		return nil
	}
	for key, host := range old.hosts {
		p.claims.remove(key, host)
		touched[key] = nil
	}
	return old
}

// remember keeps the resources for Resources.
func (p *Proxy) remember(typeURL string, upserts []config.Resource, removed []string) {
	byName := p.resources[typeURL]
	if byName == nil {
		byName = make(map[string]config.Resource)
		p.resources[typeURL] = byName
	}
	for _, r := range upserts {
		byName[r.GetName()] = withoutKey(r)
	}
	for _, name := range removed {
		delete(byName, name)
	}
}

// withoutKey leaves the private key out of what is kept to be shown. The table has parsed it and is its only place.
func withoutKey(r config.Resource) config.Resource {
	if c, ok := r.(*config.Certificate); ok {
		return &config.Certificate{Name: c.GetName(), DnsNames: c.GetDnsNames(), Chain: c.GetChain()}
	}
	return r
}

// Resources calls yield with every resource in use, in no particular order within a type.
func (p *Proxy) Resources(yield func(typeURL string, r config.Resource)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, typeURL := range config.Types() {
		for _, r := range p.resources[typeURL] {
			yield(typeURL, r)
		}
	}
}
