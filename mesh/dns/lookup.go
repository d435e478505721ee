package dns

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// ttl in seconds of all names of the platform, also of their absence. It is short because Services come and go, and long enough that a
// client's search path does not cost five queries for each lookup.
const ttl = 5

// schemaVersion is that of Kubernetes DNS-based service discovery.
const schemaVersion = "1.1.0"

// answer is what the platform knows of a name.
type answer struct {
	rcode     int
	records   []mdns.RR
	extra     []mdns.RR
	authority mdns.RR
	// alias is the name at which the search goes on, after the CNAME in records.
	alias string
}

// lookup answers for names of the cluster's domain and for addresses of Services; own is false for all others. name is canonical, owner is how
// records are to write it.
func (z *zone) lookup(name, owner string, qtype uint16) (found answer, own bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if strings.HasSuffix(name, ".in-addr.arpa.") {
		return z.pointer(name, owner, qtype)
	}
	if !mdns.IsSubDomain(z.domain, name) {
		return answer{}, false
	}
	labels := mdns.SplitDomainName(strings.TrimSuffix(name, z.domain))
	records, extra, alias, exists := z.find(labels, owner, qtype)
	found = answer{records: records, extra: extra, alias: alias, authority: soa(z.domain)}
	if !exists {
		found.rcode = mdns.RcodeNameError
	}
	return found, true
}

// find walks the schema. exists is also true for names that only have names below them.
func (z *zone) find(labels []string, owner string, qtype uint16) (records, extra []mdns.RR, alias string, exists bool) {
	if len(labels) == 0 {
		if qtype == mdns.TypeSOA {
			records = []mdns.RR{soa(z.domain)}
		}
		return records, nil, "", true
	}
	last := labels[len(labels)-1]
	labels = labels[:len(labels)-1]
	switch last {
	case "svc":
		return z.findService(labels, owner, qtype)
	case "pod":
		records, exists = z.findPod(labels, owner, qtype)
		return records, nil, "", exists
	case "dns-version":
		if len(labels) > 0 {
			return nil, nil, "", false
		}
		if qtype == mdns.TypeTXT {
			records = []mdns.RR{&mdns.TXT{Hdr: header(owner, mdns.TypeTXT), Txt: []string{schemaVersion}}}
		}
		return records, nil, "", true
	}
	return nil, nil, "", false
}

// findPod answers a-b-c-d.<namespace>.pod with the address itself.
func (z *zone) findPod(labels []string, owner string, qtype uint16) (records []mdns.RR, exists bool) {
	if len(labels) < 2 {
		return nil, true
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", "."))
	if err != nil || len(labels) > 2 {
		return nil, false
	}
	return addresses(owner, qtype, []netip.Addr{addr}), true
}

// findService answers the names below "svc".
func (z *zone) findService(labels []string, owner string, qtype uint16) (records, extra []mdns.RR, alias string, exists bool) {
	n := len(labels)
	switch n {
	case 0:
		return nil, nil, "", true
	case 1:
		return nil, nil, "", z.namespaces[labels[0]] > 0
	}
	svc := z.services[labels[n-1]+"/"+labels[n-2]]
	if svc == nil {
		return nil, nil, "", false
	}
	below := labels[:n-2]
	switch {
	case len(below) == 0 && svc.alias != "":
		return []mdns.RR{&mdns.CNAME{Hdr: header(owner, mdns.TypeCNAME), Target: svc.alias}}, nil, follow(svc.alias, qtype), true
	case len(below) == 0 && qtype == mdns.TypeSRV:
		records, extra = svc.srv(owner, "", "")
		return records, extra, "", true
	case len(below) == 0:
		return addresses(owner, qtype, svc.addresses), nil, "", true
	}
	records, extra, exists = svc.below(below, owner, qtype)
	return records, extra, "", exists
}

// below answers the names below a Service: its hosts, and its ports in the form _name._protocol.
func (s *service) below(labels []string, owner string, qtype uint16) (records, extra []mdns.RR, exists bool) {
	has := func(protocol, name string) bool {
		return slices.ContainsFunc(s.ports, func(p port) bool { return p.protocol == protocol && p.name != "" && (name == "" || p.name == name) })
	}
	switch len(labels) {
	case 1:
		if protocol, ok := strings.CutPrefix(labels[0], "_"); ok {
			return nil, nil, has(protocol, "")
		}
		addrs := s.hosts[labels[0]]
		return addresses(owner, qtype, addrs), nil, len(addrs) > 0
	case 2:
		name, ok := strings.CutPrefix(labels[0], "_")
		protocol, also := strings.CutPrefix(labels[1], "_")
		if !ok || !also || name == "" || !has(protocol, name) {
			return nil, nil, false
		}
		if qtype == mdns.TypeSRV {
			records, extra = s.srv(owner, name, protocol)
		}
		return records, extra, true
	}
	return nil, nil, false
}

// follow is where a search goes on behind an alias: nowhere if the alias itself was asked for.
func follow(alias string, qtype uint16) string {
	if qtype == mdns.TypeCNAME {
		return ""
	}
	return alias
}

// srv lists the ports of a Service, all of them when no name is given. A cluster IP is one target, a headless Service has one per address.
func (s *service) srv(owner, name, protocol string) (records, extra []mdns.RR) {
	targets := map[string][]netip.Addr{s.fqdn: s.addresses}
	if s.headless {
		clear(targets)
		for label, addrs := range s.hosts {
			targets[label+"."+s.fqdn] = addrs
		}
	}
	for _, p := range s.ports {
		if name != "" && (p.name != name || p.protocol != protocol) {
			continue
		}
		for _, target := range slices.Sorted(maps.Keys(targets)) {
			records = append(records, &mdns.SRV{
				Hdr: header(owner, mdns.TypeSRV), Priority: 0, Weight: uint16(max(1, 100/len(targets))), Port: p.number, Target: target,
			})
		}
	}
	if len(records) > 0 {
		for _, target := range slices.Sorted(maps.Keys(targets)) {
			extra = append(extra, addresses(target, mdns.TypeA, targets[target])...)
		}
	}
	return records, extra
}

// pointer answers for addresses that Services have. Others are not ours, though they may be in a private network.
func (z *zone) pointer(name, owner string, qtype uint16) (answer, bool) {
	labels := mdns.SplitDomainName(strings.TrimSuffix(name, "in-addr.arpa."))
	slices.Reverse(labels)
	addr, err := netip.ParseAddr(strings.Join(labels, "."))
	if err != nil || len(z.reverse[addr]) == 0 {
		return answer{}, false
	}
	found := answer{authority: soa(name)}
	if qtype == mdns.TypePTR || qtype == mdns.TypeANY {
		for _, host := range slices.Sorted(maps.Keys(z.reverse[addr])) {
			found.records = append(found.records, &mdns.PTR{Hdr: header(owner, mdns.TypePTR), Ptr: host})
		}
	}
	return found, true
}

// public answers for the domain of public hosts: every name below it is the gateway. The name "localhost" itself is what RFC 6761 says.
func (s *Server) public(name, owner string, qtype uint16) (answer, bool) {
	domain := s.opts.Domain
	if domain == "" || !s.opts.Gateway.IsValid() || !mdns.IsSubDomain(domain, name) {
		return answer{}, false
	}
	found := answer{authority: soa(domain)}
	switch name {
	case "localhost.":
		found.records = addresses(owner, qtype, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	case domain:
		// The apex of a real domain has records that we do not know.
		return answer{}, false
	default:
		found.records = addresses(owner, qtype, []netip.Addr{s.opts.Gateway})
	}
	return found, true
}

// addresses are the records of the asked family, in an order that differs from answer to answer.
func addresses(owner string, qtype uint16, addrs []netip.Addr) []mdns.RR {
	var records []mdns.RR
	for _, addr := range addrs {
		switch {
		case addr.Is4() && (qtype == mdns.TypeA || qtype == mdns.TypeANY):
			records = append(records, &mdns.A{Hdr: header(owner, mdns.TypeA), A: net.IP(addr.AsSlice())})
		case addr.Is6() && (qtype == mdns.TypeAAAA || qtype == mdns.TypeANY):
			records = append(records, &mdns.AAAA{Hdr: header(owner, mdns.TypeAAAA), AAAA: net.IP(addr.AsSlice())})
		}
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] }) //nolint:gosec // spreads load
	return records
}

func header(owner string, rrtype uint16) mdns.RR_Header {
	return mdns.RR_Header{Name: owner, Rrtype: rrtype, Class: mdns.ClassINET, Ttl: ttl}
}

// soa ends an answer without records. Its last number says for how long the absence may be remembered.
func soa(domain string) mdns.RR {
	const hour = 3600
	return &mdns.SOA{
		Hdr: header(domain, mdns.TypeSOA), Ns: "ns.dns." + domain, Mbox: "hostmaster." + domain,
		Serial: 1, Refresh: 2 * hour, Retry: hour / 2, Expire: 24 * hour, Minttl: ttl,
	}
}
