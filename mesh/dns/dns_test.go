package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"

	"github.com/weft-dev/weft/mesh/config"
)

var gateway = netip.MustParseAddr("10.207.0.1")

// loopback is an address that nobody else uses.
func loopback() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(100 + rand.N(100)), byte(rand.N(256)), byte(1 + rand.N(254))}), 53)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a server until the test ends.
func start(t *testing.T, opts Options) (*Server, netip.AddrPort) {
	t.Helper()
	at := loopback()
	opts.Listen = append(opts.Listen, at)
	opts.Gateway, opts.Domain = gateway, "localhost"
	s := New(opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", at.String())
		if err == nil {
			_ = conn.Close()
			return s, at
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

// upstream is a name server of the outside world.
func upstream(t *testing.T, handle mdns.HandlerFunc) netip.AddrPort {
	t.Helper()
	at := loopback()
	packets, err := net.ListenPacket("udp4", at.String())
	must(t, err)
	streams, err := net.Listen("tcp4", at.String())
	must(t, err)
	for _, server := range []*mdns.Server{{PacketConn: packets, Handler: handle}, {Listener: streams, Handler: handle}} {
		done := make(chan struct{})
		go func() { defer close(done); _ = server.ActivateAndServe() }()
		t.Cleanup(func() {
			closeSockets(server)
			<-done
		})
	}
	return at
}

func ask(t *testing.T, at netip.AddrPort, network, name string, qtype uint16) *mdns.Msg {
	t.Helper()
	query := new(mdns.Msg)
	query.SetQuestion(name, qtype)
	return send(t, at, network, query)
}

func send(t *testing.T, at netip.AddrPort, network string, query *mdns.Msg) *mdns.Msg {
	t.Helper()
	reply, _, err := (&mdns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(query, at.String())
	must(t, err)
	return reply
}

// brief is a reply without what tests do not look at: the rcode, then each answer.
func brief(m *mdns.Msg) string {
	var records []string
	for _, rr := range m.Answer {
		records = append(records, strings.Join(strings.Fields(rr.String()), " "))
	}
	slices.Sort(records)
	return strings.Join(append([]string{mdns.RcodeToString[m.Rcode]}, records...), "; ")
}

func world() []config.Resource {
	return []config.Resource{
		&config.Service{Name: "default/web", ClusterIps: []string{"10.208.0.7"}, Ports: []*config.ServicePort{
			{Name: "http", Port: 80}, {Name: "dns", Port: 53, Udp: true},
		}},
		&config.Service{
			Name: "default/db", Ports: []*config.ServicePort{{Name: "pg", Port: 5432}},
			HeadlessAddresses: []*config.HeadlessAddress{{Address: "10.207.0.8", Hostname: "db-0"}, {Address: "10.207.0.9"}},
		},
		&config.Service{Name: "default/idle"},
		&config.Service{Name: "default/hello", ExternalName: "local-gateway.weft-system.svc.cluster.local"},
		&config.Service{Name: "weft-system/local-gateway", ClusterIps: []string{"10.208.0.2"}},
		&config.Service{Name: "default/search", ExternalName: "www.example.com"},
		&config.Service{Name: "default/pub", ExternalName: "x.localhost"},
		&config.Service{Name: "default/a", ExternalName: "b.default.svc.cluster.local"},
		&config.Service{Name: "default/b", ExternalName: "a.default.svc.cluster.local"},
	}
}

func TestNamesOfTheCluster(t *testing.T) {
	t.Parallel()
	outside := upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		if q.Question[0].Name == "www.example.com." && q.Question[0].Qtype == mdns.TypeA {
			m.Answer = append(m.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)})
		} else {
			m.Rcode = mdns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	s, at := start(t, Options{Upstreams: []netip.AddrPort{outside}})
	must(t, s.Apply(config.ServiceType, world(), nil))
	tests := []struct {
		name  string
		query string
		qtype uint16
		want  string
	}{
		{name: "cluster IP", query: "web.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NOERROR; web.default.svc.cluster.local. 5 IN A 10.208.0.7"},
		{name: "case is kept", query: "Web.Default.svc.cluster.LOCAL.", qtype: mdns.TypeA, want: "NOERROR; Web.Default.svc.cluster.LOCAL. 5 IN A 10.208.0.7"},
		{name: "no IPv6", query: "web.default.svc.cluster.local.", qtype: mdns.TypeAAAA, want: "NOERROR"},
		{name: "no such service", query: "nope.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{name: "search path", query: "example.com.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{name: "search path, second", query: "example.com.svc.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{name: "search path, third", query: "example.com.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{name: "namespace", query: "default.svc.cluster.local.", qtype: mdns.TypeA, want: "NOERROR"},
		{name: "no such namespace", query: "nope.svc.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{name: "domain", query: "cluster.local.", qtype: mdns.TypeA, want: "NOERROR"},
		{
			name: "headless", query: "db.default.svc.cluster.local.", qtype: mdns.TypeA,
			want: "NOERROR; db.default.svc.cluster.local. 5 IN A 10.207.0.8; db.default.svc.cluster.local. 5 IN A 10.207.0.9",
		},
		{name: "headless without address", query: "idle.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NOERROR"},
		{name: "host of headless", query: "db-0.db.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NOERROR; db-0.db.default.svc.cluster.local. 5 IN A 10.207.0.8"},
		{
			name: "unnamed host of headless", query: "10-207-0-9.db.default.svc.cluster.local.", qtype: mdns.TypeA,
			want: "NOERROR; 10-207-0-9.db.default.svc.cluster.local. 5 IN A 10.207.0.9",
		},
		{name: "no such host of headless", query: "db-1.db.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{
			name: "SRV", query: "_http._tcp.web.default.svc.cluster.local.", qtype: mdns.TypeSRV,
			want: "NOERROR; _http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local.",
		},
		{
			name: "SRV of UDP", query: "_dns._udp.web.default.svc.cluster.local.", qtype: mdns.TypeSRV,
			want: "NOERROR; _dns._udp.web.default.svc.cluster.local. 5 IN SRV 0 100 53 web.default.svc.cluster.local.",
		},
		{name: "SRV of another protocol", query: "_dns._tcp.web.default.svc.cluster.local.", qtype: mdns.TypeSRV, want: "NXDOMAIN"},
		{name: "A of SRV name", query: "_http._tcp.web.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NOERROR"},
		{name: "protocol alone", query: "_tcp.web.default.svc.cluster.local.", qtype: mdns.TypeA, want: "NOERROR"},
		{
			name: "SRV of headless", query: "_pg._tcp.db.default.svc.cluster.local.", qtype: mdns.TypeSRV,
			want: "NOERROR; _pg._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 5432 10-207-0-9.db.default.svc.cluster.local.; " +
				"_pg._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
		},
		{
			name: "external name in the cluster", query: "hello.default.svc.cluster.local.", qtype: mdns.TypeA,
			want: "NOERROR; hello.default.svc.cluster.local. 5 IN CNAME local-gateway.weft-system.svc.cluster.local.; " +
				"local-gateway.weft-system.svc.cluster.local. 5 IN A 10.208.0.2",
		},
		{
			name: "external name outside", query: "search.default.svc.cluster.local.", qtype: mdns.TypeA,
			want: "NOERROR; search.default.svc.cluster.local. 5 IN CNAME www.example.com.; www.example.com. 60 IN A 192.0.2.1",
		},
		{
			name: "external name, public host", query: "pub.default.svc.cluster.local.", qtype: mdns.TypeA,
			want: "NOERROR; pub.default.svc.cluster.local. 5 IN CNAME x.localhost.; x.localhost. 5 IN A 10.207.0.1",
		},
		{
			name: "external name as such", query: "search.default.svc.cluster.local.", qtype: mdns.TypeCNAME,
			want: "NOERROR; search.default.svc.cluster.local. 5 IN CNAME www.example.com.",
		},
		{name: "pod", query: "10-207-0-44.default.pod.cluster.local.", qtype: mdns.TypeA, want: "NOERROR; 10-207-0-44.default.pod.cluster.local. 5 IN A 10.207.0.44"},
		{name: "not a pod", query: "x.default.pod.cluster.local.", qtype: mdns.TypeA, want: "NXDOMAIN"},
		{name: "address of service", query: "7.0.208.10.in-addr.arpa.", qtype: mdns.TypePTR, want: "NOERROR; 7.0.208.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local."},
		{name: "address of host", query: "8.0.207.10.in-addr.arpa.", qtype: mdns.TypePTR, want: "NOERROR; 8.0.207.10.in-addr.arpa. 5 IN PTR db-0.db.default.svc.cluster.local."},
		{name: "another address", query: "1.2.0.192.in-addr.arpa.", qtype: mdns.TypePTR, want: "NXDOMAIN"},
		{name: "version of the schema", query: "dns-version.cluster.local.", qtype: mdns.TypeTXT, want: `NOERROR; dns-version.cluster.local. 5 IN TXT "1.1.0"`},
		{name: "public host", query: "hello.default.localhost.", qtype: mdns.TypeA, want: "NOERROR; hello.default.localhost. 5 IN A 10.207.0.1"},
		{name: "public host, no IPv6", query: "hello.default.localhost.", qtype: mdns.TypeAAAA, want: "NOERROR"},
		{name: "localhost", query: "localhost.", qtype: mdns.TypeA, want: "NOERROR; localhost. 5 IN A 127.0.0.1"},
		{name: "outside", query: "www.example.com.", qtype: mdns.TypeA, want: "NOERROR; www.example.com. 60 IN A 192.0.2.1"},
		{name: "outside, absent", query: "nope.example.com.", qtype: mdns.TypeA, want: "NXDOMAIN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				if diff := cmp.Diff(tt.want, brief(ask(t, at, network, tt.query, tt.qtype))); diff != "" {
					t.Errorf("answer by %s (-want +got):\n%s", network, diff)
				}
			}
		})
	}

	t.Run("external names in a circle", func(t *testing.T) {
		if got := ask(t, at, "udp", "a.default.svc.cluster.local.", mdns.TypeA); got.Rcode != mdns.RcodeServerFailure {
			t.Errorf("rcode = %s, want SERVFAIL", mdns.RcodeToString[got.Rcode])
		}
	})
	t.Run("absence may be remembered shortly", func(t *testing.T) {
		got := ask(t, at, "udp", "nope.default.svc.cluster.local.", mdns.TypeA)
		if len(got.Ns) != 1 || got.Ns[0].Header().Rrtype != mdns.TypeSOA || lifetime(got) != ttl*time.Second {
			t.Errorf("authority = %v, want one SOA for %d s", got.Ns, ttl)
		}
	})
	t.Run("SRV brings addresses", func(t *testing.T) {
		if got := ask(t, at, "udp", "_pg._tcp.db.default.svc.cluster.local.", mdns.TypeSRV); len(got.Extra) != 2 {
			t.Errorf("extra = %v, want two addresses", got.Extra)
		}
	})
}

func TestServicesComeAndGo(t *testing.T) {
	t.Parallel()
	s, at := start(t, Options{Upstreams: []netip.AddrPort{loopback()}, Timeout: 50 * time.Millisecond})
	name := "web.default.svc.cluster.local."
	if got := brief(ask(t, at, "udp", name, mdns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("before: %s", got)
	}
	must(t, s.Apply(config.ServiceType, world(), nil))
	must(t, s.Apply(config.ServiceType, []config.Resource{&config.Service{Name: "default/web", ClusterIps: []string{"10.208.0.70"}}}, nil))
	if got := brief(ask(t, at, "udp", name, mdns.TypeA)); got != "NOERROR; "+name+" 5 IN A 10.208.0.70" {
		t.Errorf("replaced: %s", got)
	}
	if got := brief(ask(t, at, "udp", "70.0.208.10.in-addr.arpa.", mdns.TypePTR)); !strings.Contains(got, name) {
		t.Errorf("new address: %s", got)
	}
	if _, own := s.zone.lookup("7.0.208.10.in-addr.arpa.", "", mdns.TypePTR); own {
		t.Error("old address still has a name")
	}
	all := make([]string, 0, len(world()))
	for _, res := range world() {
		all = append(all, res.GetName())
	}
	must(t, s.Apply(config.ServiceType, nil, all))
	if got := brief(ask(t, at, "udp", name, mdns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("removed: %s", got)
	}
	if n := len(s.zone.services) + len(s.zone.namespaces) + len(s.zone.reverse); n != 0 {
		t.Errorf("%d entries are left of removed services", n)
	}
}

func TestBadServiceIsRejectedAsAWhole(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	err := s.Apply(config.ServiceType, []config.Resource{
		&config.Service{Name: "default/good", ClusterIps: []string{"10.208.0.7"}},
		&config.Service{Name: "default/bad", ClusterIps: []string{"ten"}},
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "default/bad") {
		t.Errorf("error = %v, want one about default/bad", err)
	}
	if len(s.zone.services) != 0 {
		t.Error("part of the rejected call was taken")
	}
}

func TestQueriesThatAreNotAnswered(t *testing.T) {
	t.Parallel()
	_, at := start(t, Options{Upstreams: []netip.AddrPort{loopback()}, Timeout: 50 * time.Millisecond})
	tests := []struct {
		name string
		edit func(*mdns.Msg)
		want int
	}{
		{name: "notify", edit: func(m *mdns.Msg) { m.Opcode = mdns.OpcodeNotify }, want: mdns.RcodeNotImplemented},
		{name: "chaos", edit: func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS }, want: mdns.RcodeRefused},
		{name: "EDNS version 1", edit: func(m *mdns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, want: mdns.RcodeBadVers},
		{name: "no upstream answers", edit: func(m *mdns.Msg) { m.SetQuestion("example.com.", mdns.TypeA) }, want: mdns.RcodeServerFailure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			query := new(mdns.Msg)
			query.SetQuestion("cluster.local.", mdns.TypeA)
			tt.edit(query)
			if got := send(t, at, "udp", query); got.Rcode != tt.want {
				t.Errorf("rcode = %s, want %s", mdns.RcodeToString[got.Rcode], mdns.RcodeToString[tt.want])
			}
		})
	}
}

func TestLargeAnswersAreCutForUDP(t *testing.T) {
	t.Parallel()
	s, at := start(t, Options{})
	svc := &config.Service{Name: "default/many"}
	for i := range 200 {
		svc.HeadlessAddresses = append(svc.HeadlessAddresses, &config.HeadlessAddress{Address: fmt.Sprintf("10.207.1.%d", i)})
	}
	must(t, s.Apply(config.ServiceType, []config.Resource{svc}, nil))
	query := func(size uint16) *mdns.Msg {
		m := new(mdns.Msg)
		m.SetQuestion("many.default.svc.cluster.local.", mdns.TypeA)
		if size > 0 {
			m.SetEdns0(size, false)
		}
		return m
	}
	for _, tt := range []struct {
		name    string
		network string
		size    uint16
		limit   int
		cut     bool
	}{
		{name: "without EDNS", network: "udp", size: 0, limit: 512, cut: true},
		{name: "with EDNS", network: "udp", size: 4096, limit: udpSize, cut: true},
		{name: "by TCP", network: "tcp", size: 0, limit: mdns.MaxMsgSize, cut: false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := send(t, at, tt.network, query(tt.size))
			got.Compress = true
			if got.Truncated != tt.cut || got.Len() > tt.limit || tt.cut == (len(got.Answer) == 200) {
				t.Errorf("truncated %v, %d bytes, %d answers; want truncated %v, at most %d bytes", got.Truncated, got.Len(), len(got.Answer), tt.cut, tt.limit)
			}
			if (got.IsEdns0() != nil) != (tt.size > 0) {
				t.Errorf("EDNS in the answer = %v, want what the query had", got.IsEdns0())
			}
		})
	}
}

func TestForwardingUsesTheTransportOfTheClient(t *testing.T) {
	t.Parallel()
	outside := upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		m.Truncated = w.RemoteAddr().Network() == "udp"
		if !m.Truncated {
			m.Answer = append(m.Answer, &mdns.TXT{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: 60}, Txt: []string{"large"}})
		}
		_ = w.WriteMsg(m)
	})
	_, at := start(t, Options{Upstreams: []netip.AddrPort{outside}})
	if got := ask(t, at, "udp", "example.com.", mdns.TypeTXT); !got.Truncated || len(got.Answer) != 0 {
		t.Errorf("by UDP: truncated %v, answers %v; want the upstream's truncation", got.Truncated, got.Answer)
	}
	if got := ask(t, at, "tcp", "example.com.", mdns.TypeTXT); got.Truncated || len(got.Answer) != 1 {
		t.Errorf("by TCP: truncated %v, answers %v; want one answer", got.Truncated, got.Answer)
	}
}

func TestNextUpstreamIsAsked(t *testing.T) {
	t.Parallel()
	var broken, working atomic.Int32
	failing := upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		broken.Add(1)
		_ = w.WriteMsg(new(mdns.Msg).SetRcode(q, mdns.RcodeServerFailure))
	})
	answering := upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		working.Add(1)
		m := new(mdns.Msg).SetReply(q)
		m.Answer = append(m.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)})
		_ = w.WriteMsg(m)
	})
	silent := loopback()
	_, at := start(t, Options{Upstreams: []netip.AddrPort{silent, failing, answering}, Timeout: 100 * time.Millisecond})
	for range 3 {
		if got := brief(ask(t, at, "udp", "example.com.", mdns.TypeA)); got != "NOERROR; example.com. 60 IN A 192.0.2.1" {
			t.Errorf("answer = %s", got)
		}
	}
	if broken.Load() != 1 || working.Load() != 1 {
		t.Errorf("upstreams were asked %d and %d times, want once each: the answer is to be kept", broken.Load(), working.Load())
	}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddrPort("127.0.0.9:53")
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string, age time.Duration) {
		t.Helper()
		must(t, os.WriteFile(path, []byte(text), 0o600))
		stamp := time.Now().Add(-age)
		must(t, os.Chtimes(path, stamp, stamp))
	}
	opts := Options{Listen: []netip.AddrPort{own}, Gateway: gateway, ResolvConf: path}
	opts.complete()
	f := newForwarder(opts)
	if _, err := f.exchange(t.Context(), "udp", new(mdns.Msg).SetQuestion("example.com.", mdns.TypeA)); !errors.Is(err, errNoUpstream) {
		t.Errorf("error without a file = %v, want %v", err, errNoUpstream)
	}
	write("nameserver 127.0.0.9\nnameserver 10.207.0.1\nnameserver 192.0.2.53\nnameserver nonsense\nnameserver 2001:db8::53\n", time.Minute)
	f.checked = time.Time{}
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
	equal := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, f.upstreams(), equal); diff != "" {
		t.Errorf("upstreams without ourselves (-want +got):\n%s", diff)
	}
	write("nameserver 192.0.2.54\n", 0)
	f.checked = time.Time{}
	if diff := cmp.Diff([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:53")}, f.upstreams(), equal); diff != "" {
		t.Errorf("upstreams after a change (-want +got):\n%s", diff)
	}
}

func TestTooManyForwardsFailAtOnce(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	outside := upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		close(entered)
		<-release
		_ = w.WriteMsg(new(mdns.Msg).SetReply(q))
	})
	opts := Options{Upstreams: []netip.AddrPort{outside}, MaxForwards: 1, Timeout: 10 * time.Second}
	opts.complete()
	f := newForwarder(opts)
	done := make(chan error, 1)
	go func() {
		_, err := f.exchange(t.Context(), "udp", new(mdns.Msg).SetQuestion("a.example.com.", mdns.TypeA))
		done <- err
	}()
	<-entered
	if _, err := f.exchange(t.Context(), "udp", new(mdns.Msg).SetQuestion("b.example.com.", mdns.TypeA)); !errors.Is(err, errBusy) {
		t.Errorf("error = %v, want %v", err, errBusy)
	}
	close(release)
	must(t, <-done)
}

func TestCache(t *testing.T) {
	t.Parallel()
	record := func(name string, ttl uint32) *mdns.Msg {
		m := new(mdns.Msg)
		m.SetQuestion(name, mdns.TypeA)
		m.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: ttl}, A: net.IPv4(192, 0, 2, 1)}}
		return m
	}
	now := time.Unix(1000, 0)
	c := newCache(2)
	c.now = func() time.Time { return now }
	a, b, d := record("a.", 10), record("b.", 100), record("d.", 100)
	for _, m := range []*mdns.Msg{a, b} {
		c.put(questionOf(m), m)
	}
	now = now.Add(4 * time.Second)
	if got := c.get(questionOf(a)); got == nil || got.Answer[0].Header().Ttl != 6 {
		t.Errorf("after 4 s of 10: %v, want 6 s left", got)
	}
	c.put(questionOf(d), d)
	if c.get(questionOf(b)) != nil {
		t.Error("the least recently used answer is still there")
	}
	now = now.Add(6 * time.Second)
	if c.get(questionOf(a)) != nil {
		t.Error("an answer outlived its records")
	}
	if c.get(questionOf(d)) == nil {
		t.Error("a living answer is gone")
	}
	failure := record("f.", 10)
	failure.Rcode = mdns.RcodeServerFailure
	c.put(questionOf(failure), failure)
	if c.get(questionOf(failure)) != nil {
		t.Error("a failure was kept")
	}
}
