package proxy

import (
	"fmt"
	"math"
	"testing"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/message"
)

func compiled(v *config.VirtualHost) *virtualHost {
	return compileHost("r", v, func(name string) *backend {
		b := new(backend)
		b.Name = name
		return b
	})
}

// TestChoose checks that shares are right all along and not only in the end: a canary of one percent must not wait for its first
// request by chance, nor get two in a row.
func TestChoose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		weights []uint32
	}{
		{"halves", []uint32{50, 50}},
		{"canary", []uint32{99, 1}},
		{"three", []uint32{70, 25, 5}},
		{"not of a hundred", []uint32{1, 1, 1, 4}},
		{"one of them zero", []uint32{30, 0, 70}},
		{"large", []uint32{math.MaxUint32, math.MaxUint32}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rule := &config.Rule{}
			total := 0.0
			for i, w := range tt.weights {
				rule.Splits = append(rule.Splits, &config.Split{Backend: fmt.Sprint(i), Weight: w})
				total += float64(w)
			}
			r := compiled(&config.VirtualHost{Rules: []*config.Rule{rule}}).rules[0]
			got := make(map[string]float64)
			for n := 1; n <= 5000; n++ {
				got[r.choose().backend.Name]++
				for i, w := range tt.weights {
					want := float64(n) * float64(w) / total
					if diff := math.Abs(got[fmt.Sprint(i)] - want); diff > 5 {
						t.Fatalf("after %d requests split %d has %v, want %.1f", n, i, got[fmt.Sprint(i)], want)
					}
				}
			}
		})
	}
	if r := compiled(&config.VirtualHost{Rules: []*config.Rule{{}}}).rules[0]; r.choose() != nil {
		t.Error("a rule without splits chose one")
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a.b": "a.b", "A.b:80": "a.b", "a.b.": "a.b", "a.b.:80": "a.b", "[::1]:80": "[::1]", "[::1]": "[::1]", "1.2.3.4:5": "1.2.3.4", "": "",
	} {
		if got := normalize(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// table has n hosts.
func table(n int) *hostTable {
	changes := make(map[hostKey]*virtualHost, n)
	for i := range n {
		host := fmt.Sprintf("service-%d.default.example.com", i)
		changes[hostKey{config.Visibility_EXTERNAL, host}] = compiled(&config.VirtualHost{Hosts: []string{host}, Rules: []*config.Rule{{
			Splits: []*config.Split{{Backend: "a", Weight: 90}, {Backend: "b", Weight: 10}},
		}}})
	}
	return newHostTable().with(changes)
}

func TestRoutingDoesNotAllocate(t *testing.T) {
	hosts := table(100)
	r := &message.Request{Host: "service-42.default.example.com:8080"}
	if n := testing.AllocsPerRun(1000, func() {
		if hosts.lookup(config.Visibility_EXTERNAL, r.Host).find(r).choose() == nil {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// TestTagsByHeaderDoNotAllocate routes a request by the header that some routes have rules for, and one without it.
func TestTagsByHeaderDoNotAllocate(t *testing.T) {
	to := func(backend string) []*config.Split { return []*config.Split{{Backend: backend, Weight: 100}} }
	host := compiled(&config.VirtualHost{Rules: []*config.Rule{
		{Match: &config.Match{Headers: []*config.Header{{Name: "Knative-Serving-Tag", Value: "next"}}}, Splits: to("next")},
		{Splits: to("main"), SetHeaders: []*config.Header{{Name: "Knative-Serving-Default-Route", Value: "true"}}},
	}})
	for _, tt := range []struct{ tag, want string }{{"next", "next"}, {"unknown", "main"}, {"", "main"}} {
		r := new(message.Request)
		if tt.tag != "" {
			r.Header.Append("Knative-Serving-Tag", tt.tag)
		}
		r.Header.Append("Knative-Serving-Default-Route", "false")
		if n := testing.AllocsPerRun(100, func() {
			chosen := host.find(r)
			if got := chosen.choose().backend.Name; got != tt.want {
				t.Fatalf("tag %q leads to %q, want %q", tt.tag, got, tt.want)
			}
			apply(chosen.set, r)
		}); n != 0 {
			t.Errorf("tag %q: %v allocations per request", tt.tag, n)
		}
	}
}

func BenchmarkRouting(b *testing.B) {
	hosts := table(5000)
	r := &message.Request{Host: "service-4242.default.example.com:8080"}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			hosts.lookup(config.Visibility_EXTERNAL, r.Host).find(r).choose()
		}
	})
}

// BenchmarkRouteChange is the cost of one changed route among 5,000.
func BenchmarkRouteChange(b *testing.B) {
	hosts := table(5000)
	key := hostKey{config.Visibility_EXTERNAL, "service-42.default.example.com"}
	b.ReportAllocs()
	for b.Loop() {
		hosts = hosts.with(map[hostKey]*virtualHost{key: hosts.get(key)})
	}
}
