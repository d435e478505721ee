package proxy_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/proxy"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// harness is a proxy with a public and a cluster-local listener on loopback.
type harness struct {
	*proxy.Proxy
	t        testing.TB
	metrics  *telemetry.Metrics
	registry *prometheus.Registry
	public   string
	local    string
	client   *http.Client
	// lines are those of the access log.
	lines lines
}

func start(tb testing.TB) *harness {
	tb.Helper()
	registry := prometheus.NewRegistry()
	metrics, err := telemetry.NewMetrics(registry)
	if err != nil {
		tb.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	h := &harness{t: tb, metrics: metrics, registry: registry, lines: make(lines, 100)}
	h.Proxy = proxy.New(proxy.Options{
		Metrics: metrics, Reporter: telemetry.NewReporter("test", nil, log), DrainTimeout: 5 * time.Second, AccessLog: h.lines, Log: log,
	})
	h.apply(config.ListenerType,
		&config.Listener{Name: "public", Address: "127.0.0.1"},
		&config.Listener{Name: "local", Address: "127.0.0.2", Visibility: config.Visibility_CLUSTER_LOCAL})
	h.public, h.local = h.Addresses()["public"], h.Addresses()["local"]
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.Run(ctx); err != nil {
			tb.Errorf("Run: %v", err)
		}
	}()
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	h.client = &http.Client{Transport: transport}
	tb.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		<-ended
	})
	return h
}

func (h *harness) apply(typeURL string, upserts ...config.Resource) {
	h.t.Helper()
	if err := h.Apply(typeURL, upserts, nil); err != nil {
		h.t.Fatalf("applying %s: %v", typeURL, err)
	}
}

// backend defines the backend "revision/default/<name>" with endpoints at addresses.
func (h *harness) backend(b *config.Backend, addresses ...string) {
	h.t.Helper()
	h.endpoints(b.GetName(), addresses...)
	h.apply(config.BackendType, b)
}

func (h *harness) endpoints(name string, addresses ...string) {
	h.t.Helper()
	set := &config.Endpoints{Name: name}
	for _, a := range addresses {
		ap := netip.MustParseAddrPort(a)
		set.Endpoints = append(set.Endpoints, &config.Endpoint{Address: ap.Addr().String(), Port: uint32(ap.Port()), Pod: "default/" + a})
	}
	h.apply(config.EndpointsType, set)
}

// route sends a public host to one backend.
func (h *harness) route(host, backend string) {
	h.t.Helper()
	h.apply(config.RouteType, &config.Route{Name: "knative/default/" + host, VirtualHosts: []*config.VirtualHost{{
		Hosts: []string{host}, Rules: []*config.Rule{{Splits: []*config.Split{{Backend: backend, Weight: 100}}}},
	}}})
}

// serve gives host a backend with one server behind it.
func (h *harness) serve(host string, handler http.Handler) *config.Backend {
	h.t.Helper()
	b := revision(host)
	h.backend(b, server(h.t, handler))
	h.route(host, b.GetName())
	return b
}

func revision(name string) *config.Backend {
	return &config.Backend{
		Name: config.RevisionBackend("default", name), Activation: &config.Activation{},
		Revision: &config.Revision{Namespace: "default", Service: name, Configuration: name, Name: name},
	}
}

// server serves HTTP/1.1 and HTTP/2 with prior knowledge and returns its address.
func server(tb testing.TB, handler http.Handler) string {
	tb.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	tb.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (h *harness) request(method, host, path string, body io.Reader) *http.Request {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, "http://"+h.public+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Host = host
	return r
}

// answer is a response without its body.
type answer struct {
	StatusCode      int
	ContentLength   int64
	Header, Trailer http.Header
}

// do sends a request and returns the response and its body.
func (h *harness) do(r *http.Request) (a answer, body string) {
	h.t.Helper()
	res, err := h.client.Do(r)
	if err != nil {
		h.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = res.Body.Close() }()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatalf("%s %s: reading body: %v", r.Method, r.URL, err)
	}
	return answer{res.StatusCode, res.ContentLength, res.Header, res.Trailer}, string(all)
}

func (h *harness) get(host, path string) (a answer, body string) {
	h.t.Helper()
	return h.do(h.request(http.MethodGet, host, path, nil))
}

// eventually polls until the condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	ticker := time.NewTicker(500 * time.Microsecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			tb.Fatalf("%s: not within 10 s", what)
		}
	}
}

func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
}

func TestRouting(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.backend(revision("a"), server(t, text("a")))
	h.backend(revision("b"), server(t, text("b")))
	to := func(backend string) []*config.Rule {
		return []*config.Rule{{Splits: []*config.Split{{Backend: config.RevisionBackend("default", backend), Weight: 1}}}}
	}
	h.apply(config.RouteType, &config.Route{Name: "knative/default/r", VirtualHosts: []*config.VirtualHost{
		{Hosts: []string{"a.example.com"}, Rules: to("a")},
		{Hosts: []string{"*.example.com"}, Rules: to("b")},
		{Hosts: []string{"local.default"}, Visibility: config.Visibility_CLUSTER_LOCAL, Rules: to("a")},
		{Hosts: []string{"rules.test"}, Rules: append([]*config.Rule{
			{Match: &config.Match{Headers: []*config.Header{{Name: "knative-serving-tag", Value: "b"}}}, Splits: to("b")[0].Splits},
			{Match: &config.Match{PathPrefix: "/b/"}, Splits: to("b")[0].Splits},
		}, to("a")...)},
		{Hosts: []string{"none.test"}, Rules: to("missing")},
	}})
	for _, tt := range []struct {
		name, host, path string
		local            bool
		header           string
		status           int
		want             string
	}{
		{name: "exact", host: "a.example.com", status: 200, want: "a"},
		{name: "port and case", host: "A.Example.COM:8080", status: 200, want: "a"},
		{name: "final dot", host: "a.example.com.", status: 200, want: "a"},
		{name: "wildcard", host: "x.example.com", status: 200, want: "b"},
		{name: "wildcard of two labels", host: "x.y.example.com", status: 200, want: "b"},
		{name: "wildcard is not the apex", host: "example.com", status: 404, want: "no service at this host\n"},
		{name: "unknown", host: "other.test", status: 404, want: "no service at this host\n"},
		{name: "local from outside", host: "local.default", status: 404, want: "no service at this host\n"},
		{name: "local from a pod", host: "local.default", local: true, status: 200, want: "a"},
		{name: "public from a pod", host: "a.example.com", local: true, status: 200, want: "a"},
		{name: "default rule", host: "rules.test", path: "/bb", status: 200, want: "a"},
		{name: "path", host: "rules.test", path: "/b/c", status: 200, want: "b"},
		{name: "path itself", host: "rules.test", path: "/b", status: 200, want: "b"},
		{name: "path out of the prefix", host: "rules.test", path: "/b/../c", status: 200, want: "a"},
		{name: "header", host: "rules.test", header: "b", status: 200, want: "b"},
		{name: "no backend yet", host: "none.test", status: 503, want: "no backend for this route\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := h.request(http.MethodGet, tt.host, tt.path, nil)
			if tt.local {
				r.URL.Host = h.local
			}
			if tt.header != "" {
				r.Header.Set("Knative-Serving-Tag", tt.header)
			}
			res, body := h.do(r)
			if res.StatusCode != tt.status || body != tt.want {
				t.Errorf("got %d %q, want %d %q", res.StatusCode, body, tt.status, tt.want)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	h := start(t)
	var counts [3]atomic.Int64
	route := &config.Rule{}
	for i, weight := range []uint32{70, 25, 5} {
		name := "split" + strconv.Itoa(i)
		h.backend(revision(name), server(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { counts[i].Add(1) })))
		route.Splits = append(route.Splits, &config.Split{Backend: config.RevisionBackend("default", name), Weight: weight})
	}
	h.apply(config.RouteType, &config.Route{Name: "r", VirtualHosts: []*config.VirtualHost{{Hosts: []string{"split.test"}, Rules: []*config.Rule{route}}}})
	const n = 200
	for range n {
		h.get("split.test", "/")
	}
	for i, want := range []float64{0.70, 0.25, 0.05} {
		if got := float64(counts[i].Load()) / n; got < want-0.02 || got > want+0.02 {
			t.Errorf("share %d: got %.4f, want %.2f", i, got, want)
		}
	}
}

func TestParkedUntilEndpoint(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("cold")
	h.backend(b)
	h.route("cold.test", b.GetName())
	const n = 50
	answers := make(chan string, n)
	for range n {
		go func() {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+h.public+"/", strings.NewReader("body"))
			r.Host = "cold.test"
			res, err := h.client.Do(r)
			if err != nil {
				answers <- err.Error()
				return
			}
			defer func() { _ = res.Body.Close() }()
			body, _ := io.ReadAll(res.Body)
			answers <- string(body)
		}()
	}
	eventually(t, "all requests parked", func() bool { return h.Waiting(b.GetName()) == n })
	h.endpoints(b.GetName(), server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })))
	for range n {
		if got := <-answers; got != "body" {
			t.Errorf("got %q", got)
		}
	}
	cold := h.metrics.ColdStarts().Last()
	if len(cold) != 1 || cold[0].Backend != b.GetName() || cold[0].FirstByteAt < cold[0].EndpointAt || cold[0].EndpointAt < cold[0].ParkedAt {
		t.Errorf("cold starts: %+v", cold)
	}
}

// gauge is the sum of a metric over its labels.
func (h *harness) gauge(name string) float64 {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}
