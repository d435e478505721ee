package dns

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	mdns "github.com/miekg/dns"

	"github.com/weft-dev/weft/mesh/config"
)

// zone holds the names of the cluster.
type zone struct {
	// domain is the cluster's, with the final dot.
	domain string

	// mu guards the rest.
	mu sync.RWMutex
	// services by "<namespace>/<name>".
	services map[string]*service
	// namespaces counts the Services of each.
	namespaces map[string]int
	// reverse holds the names of an address, for PTR records.
	reverse map[netip.Addr]map[string]struct{}
}

// service is a config.Service in the form in which it is asked for.
type service struct {
	// fqdn has the final dot.
	fqdn      string
	addresses []netip.Addr
	// alias is set for an external name, with the final dot.
	alias    string
	headless bool
	// hosts are the addresses of a headless Service by label.
	hosts map[string][]netip.Addr
	ports []port
	// names are those by which the Service's addresses can be found back.
	names map[netip.Addr]string
}

type port struct {
	name, protocol string
	number         uint16
}

func newZone(domain string) *zone {
	return &zone{
		domain:     domain,
		services:   make(map[string]*service),
		namespaces: make(map[string]int),
		reverse:    make(map[netip.Addr]map[string]struct{}),
	}
}

// Apply takes Services into use; other types are ignored. It is an applier of mesh/distribute/client: an error means that nothing
// of the call was taken.
func (s *Server) Apply(typeURL string, upserts []config.Resource, removed []string) error {
	if typeURL != config.ServiceType {
		return nil
	}
	return s.zone.apply(upserts, removed)
}

func (z *zone) apply(upserts []config.Resource, removed []string) error {
	parsed := make(map[string]*service, len(upserts))
	for _, res := range upserts {
		svc, ok := res.(*config.Service)
		if !ok {
			return fmt.Errorf("resource %q has type %T", res.GetName(), res)
		}
		p, err := z.parse(svc)
		if err != nil {
			return fmt.Errorf("reading service %q: %w", svc.GetName(), err)
		}
		parsed[svc.GetName()] = p
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, name := range slices.Concat(removed, slices.Collect(maps.Keys(parsed))) {
		z.remove(name)
	}
	for name, svc := range parsed {
		z.add(name, svc)
	}
	return nil
}

func (z *zone) add(name string, svc *service) {
	z.services[name] = svc
	namespace, _, _ := strings.Cut(name, "/")
	z.namespaces[namespace]++
	for addr, host := range svc.names {
		if z.reverse[addr] == nil {
			z.reverse[addr] = make(map[string]struct{}, 1)
		}
		z.reverse[addr][host] = struct{}{}
	}
}

func (z *zone) remove(name string) {
	svc := z.services[name]
	if svc == nil {
		return
	}
	delete(z.services, name)
	namespace, _, _ := strings.Cut(name, "/")
	if z.namespaces[namespace]--; z.namespaces[namespace] == 0 {
		delete(z.namespaces, namespace)
	}
	for addr, host := range svc.names {
		delete(z.reverse[addr], host)
		if len(z.reverse[addr]) == 0 {
			delete(z.reverse, addr)
		}
	}
}

func (z *zone) parse(svc *config.Service) (*service, error) {
	namespace, name, ok := strings.Cut(svc.GetName(), "/")
	if !ok {
		return nil, fmt.Errorf("name %q has no namespace", svc.GetName())
	}
	parsed := &service{
		fqdn:     mdns.CanonicalName(name + "." + namespace + ".svc." + z.domain),
		headless: len(svc.GetClusterIps()) == 0 && svc.GetExternalName() == "",
		hosts:    make(map[string][]netip.Addr),
		names:    make(map[netip.Addr]string),
	}
	if svc.GetExternalName() != "" {
		parsed.alias = mdns.CanonicalName(svc.GetExternalName())
		if _, ok := mdns.IsDomainName(parsed.alias); !ok {
			return nil, fmt.Errorf("external name %q is not a name", svc.GetExternalName())
		}
	}
	for _, ip := range svc.GetClusterIps() {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, fmt.Errorf("reading cluster IP: %w", err)
		}
		parsed.addresses = append(parsed.addresses, addr)
		parsed.names[addr] = parsed.fqdn
	}
	for _, h := range svc.GetHeadlessAddresses() {
		addr, err := netip.ParseAddr(h.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("reading address: %w", err)
		}
		label := strings.ToLower(h.GetHostname())
		if label == "" {
			label = dashed(addr)
		} else {
			parsed.names[addr] = label + "." + parsed.fqdn
		}
		parsed.addresses = append(parsed.addresses, addr)
		parsed.hosts[label] = append(parsed.hosts[label], addr)
	}
	for _, p := range svc.GetPorts() {
		protocol := "tcp"
		if p.GetUdp() {
			protocol = "udp"
		}
		parsed.ports = append(parsed.ports, port{name: strings.ToLower(p.GetName()), protocol: protocol, number: uint16(p.GetPort())})
	}
	return parsed, nil
}

// dashed is the label of an address that has no host name: 10.207.0.5 is 10-207-0-5.
func dashed(addr netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(addr.String())
}
