package dns

import (
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/weft-dev/weft/mesh/config"
)

// FuzzAnswer feeds queries that clients may not send: whatever they are, the answer can be encoded and fits.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{
		"web.default.svc.cluster.local.", "_http._tcp.web.default.svc.cluster.local.", "_._.web.default.svc.cluster.local.", ".", "a.default.svc.cluster.local.",
		"1.0.208.10.in-addr.arpa.", "in-addr.arpa.", "x.localhost.", "1-2-3-4.default.pod.cluster.local.", `\000.svc.cluster.local.`,
	} {
		for _, qtype := range []uint16{mdns.TypeA, mdns.TypeSRV, mdns.TypeANY, mdns.TypePTR} {
			query := new(mdns.Msg).SetQuestion(name, qtype)
			query.SetEdns0(4096, true)
			packed, err := query.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packed)
		}
	}
	// Without a resolver configuration, no upstream is asked.
	s := New(Options{Domain: "localhost", Gateway: gateway, ResolvConf: "/nonexistent", Timeout: time.Millisecond})
	if err := s.Apply(config.ServiceType, world(), nil); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		query := new(mdns.Msg)
		if query.Unpack(packed) != nil {
			return
		}
		for _, network := range []string{"udp", "tcp"} {
			reply := s.answer(t.Context(), network, query)
			finish(reply, query, network)
			body, err := reply.Pack()
			if err != nil {
				t.Fatalf("packing the answer to %v: %v", query, err)
			}
			if network == "udp" && len(body) > udpSize {
				t.Errorf("answer has %d bytes, want at most %d", len(body), udpSize)
			}
			if reply.Id != query.Id || !reply.Response {
				t.Errorf("answer has id %d of %d, response %v", reply.Id, query.Id, reply.Response)
			}
		}
	})
}
