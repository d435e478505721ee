package capture

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/weft-dev/weft/mesh/config"
)

// servicePrefix starts the names of the Endpoints that matter here: those of Services, and not of revisions.
const servicePrefix = "service/"

// endpoint is one address behind a backend. It stays the same object over updates of the Endpoints that keep the address.
type endpoint struct {
	address netip.AddrPort
	// active counts connections and flows.
	active atomic.Int64
	// gone is set when an update no longer has the address.
	gone atomic.Bool
}

// endpoints are those of one backend. It is never changed.
type endpoints struct {
	ready, draining []*endpoint
	// turn rotates the start of the search, so that endpoints with equally many connections take turns.
	turn *atomic.Uint32
}

// destination is where a cluster IP and port lead.
type destination struct {
	service, backend string
}

// table is the configuration of the Server. Readers hold a lock once per connection or flow, not per byte.
type table struct {
	// mu guards the rest.
	mu       sync.RWMutex
	backends map[string]*endpoints
	tcp, udp map[netip.AddrPort]destination
	// services holds the destinations of each Service, to take them out again.
	services map[string]ports
}

type ports struct{ tcp, udp []netip.AddrPort }

func newTable() *table {
	return &table{
		backends: make(map[string]*endpoints),
		tcp:      make(map[netip.AddrPort]destination),
		udp:      make(map[netip.AddrPort]destination),
		services: make(map[string]ports),
	}
}

// Apply takes Services and Endpoints into use; other types are ignored. It is an applier of mesh/distribute/client: an error means that
// nothing of the call was taken.
func (s *Server) Apply(typeURL string, upserts []config.Resource, removed []string) error {
	switch typeURL {
	case config.EndpointsType:
		return s.table.applyEndpoints(upserts, removed)
	case config.ServiceType:
		if err := s.table.applyServices(upserts, removed); err != nil {
			return err
		}
		select {
		case s.udpChanged <- struct{}{}:
		default:
		}
	}
	return nil
}

func (t *table) applyEndpoints(upserts []config.Resource, removed []string) error {
	parsed := make(map[string][]parsedEndpoint, len(upserts))
	for _, res := range upserts {
		e, ok := res.(*config.Endpoints)
		if !ok {
			return fmt.Errorf("resource %q has type %T", res.GetName(), res)
		}
		if !strings.HasPrefix(e.GetName(), servicePrefix) {
			continue
		}
		list, err := parseEndpoints(e)
		if err != nil {
			return err
		}
		parsed[e.GetName()] = list
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, list := range parsed {
		t.backends[name] = t.backends[name].replace(list)
	}
	for _, name := range removed {
		t.backends[name].replace(nil)
		delete(t.backends, name)
	}
	return nil
}

type parsedEndpoint struct {
	address  netip.AddrPort
	draining bool
}

func parseEndpoints(e *config.Endpoints) ([]parsedEndpoint, error) {
	list := make([]parsedEndpoint, 0, len(e.GetEndpoints()))
	for _, ep := range e.GetEndpoints() {
		addr, err := netip.ParseAddr(ep.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("reading endpoint of %q: %w", e.GetName(), err)
		}
		if ep.GetPort() == 0 || ep.GetPort() > 65535 {
			return nil, fmt.Errorf("reading endpoint of %q: port %d is out of range", e.GetName(), ep.GetPort())
		}
		list = append(list, parsedEndpoint{address: netip.AddrPortFrom(addr.Unmap(), uint16(ep.GetPort())), draining: ep.GetDraining()})
	}
	return list, nil
}

// replace returns the successor of e with the endpoints of list. It works on nil.
func (e *endpoints) replace(list []parsedEndpoint) *endpoints {
	old := make(map[netip.AddrPort]*endpoint)
	next := &endpoints{turn: new(atomic.Uint32)}
	if e != nil {
		next.turn = e.turn
		for _, ep := range slices.Concat(e.ready, e.draining) {
			old[ep.address] = ep
		}
	}
	for _, p := range list {
		ep := old[p.address]
		if ep == nil {
			ep = &endpoint{address: p.address}
		}
		delete(old, p.address)
		if p.draining {
			next.draining = append(next.draining, ep)
		} else {
			next.ready = append(next.ready, ep)
		}
	}
	for _, ep := range old {
		ep.gone.Store(true)
	}
	return next
}

func (t *table) applyServices(upserts []config.Resource, removed []string) error {
	for _, res := range upserts {
		svc, ok := res.(*config.Service)
		if !ok {
			return fmt.Errorf("resource %q has type %T", res.GetName(), res)
		}
		for _, ip := range svc.GetClusterIps() {
			if _, err := netip.ParseAddr(ip); err != nil {
				return fmt.Errorf("reading cluster IP of %q: %w", res.GetName(), err)
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, res := range upserts {
		t.removeService(res.GetName())
		if svc, ok := res.(*config.Service); ok {
			t.addService(svc)
		}
	}
	for _, name := range removed {
		t.removeService(name)
	}
	return nil
}

func (t *table) addService(svc *config.Service) {
	var mine ports
	for _, ip := range svc.GetClusterIps() {
		addr := netip.MustParseAddr(ip)
		for _, port := range svc.GetPorts() {
			if port.GetBackend() == "" {
				continue
			}
			at := netip.AddrPortFrom(addr, uint16(port.GetPort()))
			to := destination{service: svc.GetName(), backend: port.GetBackend()}
			if port.GetUdp() {
				t.udp[at] = to
				mine.udp = append(mine.udp, at)
			} else {
				t.tcp[at] = to
				mine.tcp = append(mine.tcp, at)
			}
		}
	}
	if len(mine.tcp)+len(mine.udp) > 0 {
		t.services[svc.GetName()] = mine
	}
}

// removeService takes the destinations of a Service out, except those that another Service has taken over.
func (t *table) removeService(name string) {
	for _, at := range t.services[name].tcp {
		if t.tcp[at].service == name {
			delete(t.tcp, at)
		}
	}
	for _, at := range t.services[name].udp {
		if t.udp[at].service == name {
			delete(t.udp, at)
		}
	}
	delete(t.services, name)
}

// connection describes a TCP connection; ok is false when no Service has the destination.
func (t *table) connection(source, at netip.AddrPort) (c Connection, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	to, ok := t.tcp[at]
	return Connection{Source: source, Destination: at, Service: to.service, Backend: to.backend}, ok
}

// udpPorts lists the UDP destinations.
func (t *table) udpPorts() map[netip.AddrPort]destination {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.udp)
}

// leadsTo says whether a backend has an address as its endpoint.
func (t *table) leadsTo(backend string, address netip.AddrPort) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.backends[backend]
	return e != nil && slices.ContainsFunc(e.ready, func(ep *endpoint) bool { return ep.address == address })
}

// choose picks the ready endpoint with the fewest connections that has not been tried, and counts one more on it. When none is ready, one
// that is draining is better than none: this is how Kubernetes rolls a Deployment with one replica without an error.
func (t *table) choose(backend string, tried []netip.AddrPort) *endpoint {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.backends[backend]
	if e == nil {
		return nil
	}
	best := least(e.ready, int(e.turn.Add(1)), tried)
	if best == nil {
		best = least(e.draining, int(e.turn.Add(1)), tried)
	}
	if best != nil {
		best.active.Add(1)
	}
	return best
}

func least(list []*endpoint, turn int, tried []netip.AddrPort) *endpoint {
	var best *endpoint
	for i := range list {
		ep := list[(turn+i)%len(list)]
		if slices.Contains(tried, ep.address) {
			continue
		}
		if best == nil || ep.active.Load() < best.active.Load() {
			best = ep
		}
	}
	return best
}
