package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weft-dev/weft/mesh/config"
)

func vhost(backend string, hosts ...string) *config.VirtualHost {
	return &config.VirtualHost{Hosts: hosts, Rules: []*config.Rule{{Splits: []*config.Split{{Backend: backend, Weight: 1}}}}}
}

// TestSwapUnderLoad changes everything that can change, many times, while requests flow: none may fail.
func TestSwapUnderLoad(t *testing.T) {
	t.Parallel()
	h := start(t)
	names := []string{"blue", "green"}
	var pool [4]string
	for i := range pool {
		pool[i] = server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	}
	for i, name := range names {
		h.backend(revision(name), pool[i])
	}
	h.route("swap.test", revision("blue").GetName())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if got := <-h.send(t.Context(), http.MethodPost, "swap.test", "/", "body"); got.body != "body" {
					t.Errorf("got %+v", got)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := range 300 {
		name := revision(names[i%2]).GetName()
		h.endpoints(name, pool[i%4], pool[(i+1)%4])
		b := revision(names[i%2])
		b.Concurrency = uint32(i % 3)
		h.apply(config.BackendType, b)
		h.route("swap.test", name)
		for j := range 20 {
			h.route(fmt.Sprintf("other-%d.test", j), name)
		}
		h.apply(config.ListenerType, &config.Listener{Name: fmt.Sprintf("extra-%d", i%2), Address: fmt.Sprintf("127.0.2.%d", i%2+1)})
		if i%10 == 0 {
			before := done.Load()
			eventually(t, "traffic", func() bool { return done.Load() > before })
		}
	}
	cancel()
	wg.Wait()
}

func TestHostOfSeveralRoutes(t *testing.T) {
	t.Parallel()
	h := start(t)
	for _, name := range []string{"one", "two"} {
		h.backend(revision(name), server(t, text(name)))
	}
	one, two := revision("one").GetName(), revision("two").GetName()
	check := func(step, want string) {
		t.Helper()
		if _, got := h.get("shared.test", "/"); got != want {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
	}
	h.apply(config.RouteType, &config.Route{Name: "b", VirtualHosts: []*config.VirtualHost{vhost(two, "shared.test")}})
	check("one claim", "two")
	h.apply(config.RouteType, &config.Route{Name: "a", VirtualHosts: []*config.VirtualHost{vhost(one, "shared.test")}})
	check("the first name wins", "one")
	if err := h.Apply(config.RouteType, nil, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	check("the next claim follows", "two")
	h.apply(config.RouteType, &config.Route{Name: "b", VirtualHosts: []*config.VirtualHost{vhost(two, "*.test")}})
	check("a wildcard instead", "two")
	if err := h.Apply(config.RouteType, nil, []string{"b", "unknown"}); err != nil {
		t.Fatal(err)
	}
	check("none left", "no service at this host\n")
}

func TestBackendComesAndGoes(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := h.serve("b.test", text("ok"))
	remove := func(typeURL string) {
		t.Helper()
		if err := h.Apply(typeURL, nil, []string{b.GetName()}); err != nil {
			t.Fatal(err)
		}
	}
	status := func(step string, want int) {
		t.Helper()
		if res, body := h.get("b.test", "/"); res.StatusCode != want {
			t.Errorf("%s: got %d %q, want %d", step, res.StatusCode, body, want)
		}
	}
	status("defined", 200)
	if h.gauge("weft_requests_total") != 1 {
		t.Errorf("counted %v", h.gauge("weft_requests_total"))
	}
	remove(config.BackendType)
	status("removed", 503)
	h.apply(config.BackendType, b)
	status("back", 200)
	remove(config.EndpointsType)
	waiting := h.send(t.Context(), http.MethodGet, "b.test", "/", "")
	eventually(t, "parked without endpoints", func() bool { return h.Waiting(b.GetName()) == 1 })
	h.endpoints(b.GetName(), server(t, text("again")))
	if got := <-waiting; got.body != "again" {
		t.Errorf("got %+v", got)
	}
	remove(config.BackendType)
	remove(config.EndpointsType)
	if err := h.Apply(config.RouteType, nil, []string{"knative/default/b.test"}); err != nil {
		t.Fatal(err)
	}
	if n := h.Backends(); n != 0 {
		t.Errorf("%d backends are left after all that named them went", n)
	}
	if h.gauge("weft_requests_total") != 0 {
		t.Error("time series are left")
	}
}

func TestRejected(t *testing.T) {
	t.Parallel()
	h := start(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := uint32(taken.Addr().(*net.TCPAddr).Port)
	for _, tt := range []struct {
		name, typeURL string
		resources     []config.Resource
		want          string
	}{
		{"port in use", config.ListenerType, []config.Resource{
			&config.Listener{Name: "fine", Address: "127.0.2.9"}, &config.Listener{Name: "busy", Address: "127.0.0.1", Port: port},
		}, "address already in use"},
		{"two listeners at one address", config.ListenerType, []config.Resource{
			&config.Listener{Name: "x", Address: "127.0.2.9"}, &config.Listener{Name: "y", Address: "127.0.2.9"},
		}, "same address"},
		{"unknown protocol", config.ListenerType, []config.Resource{&config.Listener{Name: "n", Protocol: 7}}, "protocol 7"},
		{"unknown version of TLS", config.ListenerType, []config.Resource{
			&config.Listener{Name: "n", Protocol: config.Listener_HTTPS, MinTlsVersion: 7},
		}, "version 7"},
		{"certificate without key", config.CertificateType, []config.Resource{&config.Certificate{Name: "c", DnsNames: []string{"a.test"}}}, "key"},
		{"host name as address", config.ListenerType, []config.Resource{&config.Listener{Name: "n", Address: "localhost"}}, "localhost"},
		{"port out of range", config.ListenerType, []config.Resource{&config.Listener{Name: "n", Port: 70000}}, "70000"},
		{"host with port", config.RouteType, []config.Resource{
			&config.Route{Name: "r", VirtualHosts: []*config.VirtualHost{vhost("b", "a.test:80")}},
		}, "a.test:80"},
		{"endpoint without port", config.EndpointsType, []config.Resource{
			&config.Endpoints{Name: "e", Endpoints: []*config.Endpoint{{Address: "10.0.0.1"}}},
		}, "port 0"},
		{"endpoint by name", config.EndpointsType, []config.Resource{
			&config.Endpoints{Name: "e", Endpoints: []*config.Endpoint{{Address: "host", Port: 1}}},
		}, "host"},
		{"backend without name", config.BackendType, []config.Resource{&config.Backend{}}, "name is empty"},
		{"wrong type", config.BackendType, []config.Resource{&config.Route{Name: "r"}}, "type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := h.Apply(tt.typeURL, tt.resources, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if len(h.Addresses()) != 2 {
				t.Errorf("listeners: %v", h.Addresses())
			}
		})
	}
	// A port that becomes free is taken without another word from the control plane.
	if err := h.Apply(config.ListenerType, []config.Resource{&config.Listener{Name: "busy", Address: "127.0.0.1", Port: port}}, nil); err == nil {
		t.Fatal("the port is in use")
	}
	_ = taken.Close()
	eventually(t, "listener opened", func() bool { return h.Addresses()["busy"] != "" })
}

func TestListenerChanges(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.serve("l.test", text("ok"))
	if res, _ := h.get("l.test", "/"); res.StatusCode != http.StatusOK {
		t.Fatalf("got %d", res.StatusCode)
	}
	// The same address under another name keeps its socket and the connections on it.
	before := h.public
	if err := h.Apply(config.ListenerType, []config.Resource{&config.Listener{Name: "renamed", Address: "127.0.0.1"}}, []string{"public"}); err != nil {
		t.Fatal(err)
	}
	if got := h.Addresses()["renamed"]; got != before {
		t.Errorf("got %q, want %q", got, before)
	}
	if res, _ := h.get("l.test", "/"); res.StatusCode != http.StatusOK {
		t.Errorf("got %d", res.StatusCode)
	}
	if err := h.Apply(config.ListenerType, nil, []string{"renamed"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "socket closed", func() bool {
		conn, err := net.Dial("tcp", before)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.serve("admin.test", text("ok"))
	admin := h.Admin(h.metrics.ColdStarts())
	call := func(method, path string) (int, string) {
		rec := httptest.NewRecorder()
		admin.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		return rec.Code, rec.Body.String()
	}
	if code, _ := call(http.MethodGet, "/ready"); code != 503 {
		t.Errorf("before the configuration: %d", code)
	}
	h.SetSynced()
	for path, want := range map[string]string{"/ready": "ready\n", "/healthz": "ok\n", "/coldstarts": "[]\n"} {
		if code, body := call(http.MethodGet, path); code != 200 || body != want {
			t.Errorf("%s: got %d %q, want %q", path, code, body, want)
		}
	}
	_, body := call(http.MethodGet, "/config")
	var dump map[string]map[string]any
	if err := json.Unmarshal([]byte(body), &dump); err != nil {
		t.Fatal(err)
	}
	if dump["Route"]["knative/default/admin.test"] == nil || dump["Listener"]["public"] == nil || dump["addresses"]["public"] != h.public {
		t.Errorf("configuration: %s", body)
	}
	if code, _ := call(http.MethodPost, "/drain"); code != 200 || h.Ready() {
		t.Errorf("drain: %d", code)
	}
	if _, err := net.Dial("tcp", h.public); err == nil {
		t.Error("accepts connections after the drain")
	}
}

// TestStopFinishesRequests has requests of every kind in flight when the proxy is told to stop.
func TestStopFinishesRequests(t *testing.T) {
	t.Parallel()
	h := start(t)
	release := make(chan struct{})
	b := h.serve("stop.test", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "done")
	}))
	parked := revision("parked")
	h.backend(parked)
	h.route("parked.test", parked.GetName())
	running := h.send(t.Context(), http.MethodGet, "stop.test", "/", "")
	waiting := h.send(t.Context(), http.MethodGet, "parked.test", "/", "")
	eventually(t, "both here", func() bool { return h.InFlight(b.GetName()) == 1 && h.Waiting(parked.GetName()) == 1 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.Stop()
	}()
	eventually(t, "no longer accepting", func() bool {
		conn, err := net.Dial("tcp", h.public)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	h.endpoints(parked.GetName(), server(t, text("woken")))
	if got := <-running; got.body != "done" {
		t.Errorf("running: %+v", got)
	}
	if got := <-waiting; got.body != "woken" {
		t.Errorf("parked: %+v", got)
	}
	<-stopped
}
