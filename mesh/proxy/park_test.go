package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weft-dev/weft/mesh/config"
)

// result is what became of one request.
type result struct {
	status int
	body   string
	err    error
}

// send sends a request in the background.
func (h *harness) send(ctx context.Context, method, host, path, body string) <-chan result {
	out := make(chan result, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, method, "http://"+h.public+path, strings.NewReader(body))
		if err != nil {
			out <- result{err: err}
			return
		}
		r.Host = host
		res, err := h.client.Do(r)
		if err != nil {
			out <- result{err: err}
			return
		}
		defer func() { _ = res.Body.Close() }()
		got, err := io.ReadAll(res.Body)
		out <- result{res.StatusCode, string(got), err}
	}()
	return out
}

// TestParkedInOrder parks 1,000 requests before one instance that takes one at a time.
func TestParkedInOrder(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("order")
	b.Concurrency = 1
	h.backend(b)
	h.route("order.test", b.GetName())
	const n = 1000
	var results []<-chan result
	for i := range n {
		results = append(results, h.send(t.Context(), http.MethodGet, "order.test", fmt.Sprintf("/%d", i), ""))
		eventually(t, "request parked", func() bool { return h.Waiting(b.GetName()) == i+1 })
	}
	var order []string
	var present, most atomic.Int64
	h.endpoints(b.GetName(), server(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), present.Add(1)))
		order = append(order, r.URL.Path) // one at a time, or the race detector would tell
		present.Add(-1)
	})))
	for i, r := range results {
		if got := <-r; got.status != 200 || got.err != nil {
			t.Fatalf("request %d: %+v", i, got)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d requests at the instance at a time", most.Load())
	}
	for i, path := range order {
		if want := fmt.Sprintf("/%d", i); path != want {
			t.Fatalf("request %d was %s", i, path)
		}
	}
}

// TestConcurrencyIsExact has many clients at instances that take three requests each.
func TestConcurrencyIsExact(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("exact")
	b.Concurrency = 3
	var addresses []string
	var served atomic.Int64
	for range 3 {
		var present atomic.Int64
		addresses = append(addresses, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if now := present.Add(1); now > 3 {
				t.Errorf("%d requests at an instance", now)
			}
			_, _ = io.Copy(w, r.Body)
			served.Add(1)
			present.Add(-1)
		})))
	}
	h.backend(b, addresses...)
	h.route("exact.test", b.GetName())
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			for range 25 {
				if got := <-h.send(t.Context(), http.MethodPost, "exact.test", "/", "x"); got.body != "x" {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	wg.Wait()
	if served.Load() != 1000 {
		t.Errorf("served %d", served.Load())
	}
	if h.Waiting(b.GetName()) != 0 || h.InFlight(b.GetName()) != 0 {
		t.Errorf("left over: %d parked, %d present", h.Waiting(b.GetName()), h.InFlight(b.GetName()))
	}
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("full")
	b.Activation.QueueCapacity = 2
	h.backend(b)
	h.route("full.test", b.GetName())
	first := h.send(t.Context(), http.MethodGet, "full.test", "/", "")
	second := h.send(t.Context(), http.MethodGet, "full.test", "/", "")
	eventually(t, "both parked", func() bool { return h.Waiting(b.GetName()) == 2 })
	res, body := h.get("full.test", "/")
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" || body != "pending request queue full\n" {
		t.Errorf("got %d %q %v", res.StatusCode, body, res.Header)
	}
	h.endpoints(b.GetName(), server(t, text("ok")))
	for _, r := range []<-chan result{first, second} {
		if got := <-r; got.body != "ok" {
			t.Errorf("got %+v", got)
		}
	}
}

// TestClientGone has clients leave while their requests are parked and while they are at the instance.
func TestClientGone(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run("parked "+method, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			b := revision("gone")
			h.backend(b)
			h.route("gone.test", b.GetName())
			ctx, cancel := context.WithCancel(t.Context())
			r := h.send(ctx, method, "gone.test", "/", "body")
			eventually(t, "parked", func() bool { return h.Waiting(b.GetName()) == 1 })
			cancel()
			eventually(t, "place freed", func() bool { return h.Waiting(b.GetName()) == 0 && h.InFlight(b.GetName()) == 0 })
			if got := <-r; !errors.Is(got.err, context.Canceled) {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("parked with a body still coming", func(t *testing.T) {
		t.Parallel()
		h := start(t)
		b := revision("gone")
		h.backend(b)
		h.route("gone.test", b.GetName())
		conn := h.dial(t)
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: gone.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n")
		eventually(t, "parked", func() bool { return h.Waiting(b.GetName()) == 1 })
		_ = conn.Close()
		eventually(t, "place freed", func() bool { return h.Waiting(b.GetName()) == 0 && h.InFlight(b.GetName()) == 0 })
	})
	t.Run("in flight", func(t *testing.T) {
		t.Parallel()
		h := start(t)
		b := revision("gone")
		b.Concurrency = 1
		arrived, left := make(chan struct{}, 1), make(chan struct{}, 1)
		h.backend(b, server(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/next" {
				return
			}
			arrived <- struct{}{}
			<-r.Context().Done()
			left <- struct{}{}
		})))
		h.route("gone.test", b.GetName())
		ctx, cancel := context.WithCancel(t.Context())
		first := h.send(ctx, http.MethodGet, "gone.test", "/", "")
		<-arrived
		cancel()
		<-first
		<-left // the instance learns of it
		if got := <-h.send(t.Context(), http.MethodGet, "gone.test", "/next", ""); got.status != 200 {
			t.Errorf("the place was not freed: %+v", got)
		}
	})
}

// TestRefusedConnectionParksAgain has an endpoint appear a moment before its server listens.
func TestRefusedConnectionParksAgain(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("early")
	b.Concurrency = 1
	h.backend(b)
	h.route("early.test", b.GetName())
	address := closedPort(t)
	h.endpoints(b.GetName(), address)
	const n = 5
	var results []<-chan result
	for range n {
		results = append(results, h.send(t.Context(), http.MethodPost, "early.test", "/", "body"))
	}
	eventually(t, "all refused and parked", func() bool { return h.InFlight(b.GetName()) == n && h.Refusals(b.GetName()) >= 2 })
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	for _, r := range results {
		if got := <-r; got.body != "body" {
			t.Errorf("got %+v", got)
		}
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	h := start(t)
	hang := make(chan struct{})
	address := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", "100")
			fallthrough
		case "/started":
			_, _ = io.WriteString(w, "begin")
			_ = http.NewResponseController(w).Flush()
		case "/trickle":
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for range 20 {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
				<-ticker.C
			}
			return
		}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(hang) }) // before the server's own, which waits for its handlers
	define := func(host string, timeouts *config.Timeouts, addresses ...string) {
		b := revision(host)
		b.Timeouts = timeouts
		h.backend(b, addresses...)
		h.route(host, b.GetName())
	}
	define("request.test", &config.Timeouts{RequestMs: 150}, address)
	define("start.test", &config.Timeouts{RequestMs: 10_000, ResponseStartMs: 150}, address)
	define("idle.test", &config.Timeouts{RequestMs: 10_000, IdleMs: 500}, address)
	define("parked.test", &config.Timeouts{RequestMs: 150})
	for _, tt := range []struct {
		name, host, path string
		status           int
		body             string
		cut              bool
	}{
		{name: "request", host: "request.test", path: "/", status: 504, body: "request timeout\n"},
		{name: "request after a stream has begun", host: "request.test", path: "/started", status: 200, body: "beginrequest timeout\n"},
		{name: "request after a response of declared length has begun", host: "request.test", path: "/length", status: 200, body: "begin", cut: true},
		{name: "response start", host: "start.test", path: "/", status: 504, body: "request timeout\n"},
		{name: "response in time, longer than its start", host: "start.test", path: "/trickle", status: 200, body: strings.Repeat("x", 20)},
		{name: "idle", host: "idle.test", path: "/", status: 504, body: "request timeout\n"},
		{name: "idle after a stream has begun", host: "idle.test", path: "/started", status: 200, body: "beginrequest timeout\n"},
		{name: "idle after a response of declared length has begun", host: "idle.test", path: "/length", status: 200, body: "begin", cut: true},
		{name: "not idle", host: "idle.test", path: "/trickle", status: 200, body: strings.Repeat("x", 20)},
		{name: "parked", host: "parked.test", path: "/", status: 504, body: "activator request timeout\n"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(tt.name+" "+method, func(t *testing.T) {
				t.Parallel()
				body := ""
				if method == http.MethodPost {
					body = "body"
				}
				got := <-h.send(context.Background(), method, tt.host, tt.path, body)
				if got.status != tt.status || got.body != tt.body || (got.err != nil) != tt.cut {
					t.Errorf("got %+v, want %d %q, cut %v", got, tt.status, tt.body, tt.cut)
				}
			})
		}
	}
}

// TestTimeoutFreesSlowClients has clients that neither read nor write.
func TestTimeoutFreesSlowClients(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("slow")
	b.Timeouts = &config.Timeouts{RequestMs: 200}
	h.backend(b, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.Copy(w, io.LimitReader(newPattern(), 100<<20))
	})))
	h.route("slow.test", b.GetName())
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: slow.test\r\nContent-Length: 100\r\n\r\nx",
	} {
		conn := h.dial(t)
		_, _ = io.WriteString(conn, request)
		eventually(t, "request arrived", func() bool { return h.InFlight(b.GetName()) == 1 })
		eventually(t, "place freed", func() bool { return h.InFlight(b.GetName()) == 0 })
	}
}

// TestDrainLosesNothing drains one instance after the other under load, as the node does when it stops pods: no request fails, none
// arrives after the drain, and none is in flight when it returns.
func TestDrainLosesNothing(t *testing.T) {
	t.Parallel()
	for _, protocol := range []config.Backend_Protocol{config.Backend_HTTP1, config.Backend_H2C} {
		t.Run(protocol.String(), func(t *testing.T) {
			t.Parallel()
			h := start(t)
			b := revision("drain")
			b.Protocol = protocol
			h.backend(b)
			h.route("drain.test", b.GetName())
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var done atomic.Int64
			for range 16 {
				wg.Go(func() {
					for ctx.Err() == nil {
						got := <-h.send(t.Context(), http.MethodPost, "drain.test", "/", "body")
						if got.status != 200 || got.body != "body" {
							t.Errorf("got %+v", got)
							return
						}
						done.Add(1)
					}
				})
			}
			for i := range 8 {
				ip := fmt.Sprintf("127.0.1.%d", 10+i)
				instance := newInstance(t, ip, protocol)
				before := done.Load()
				h.endpoints(b.GetName(), instance.address)
				eventually(t, "traffic at the instance", func() bool { return done.Load() > before+50 })
				if err := h.WaitDrained(t.Context(), netip.MustParseAddr(ip)); err != nil {
					t.Fatal(err)
				}
				instance.stop(t)
			}
			cancel()
			last := newInstance(t, "127.0.1.9", protocol)
			h.endpoints(b.GetName(), last.address)
			wg.Wait()
		})
	}
}

// instance is a server that complains about requests after it has been stopped.
type instance struct {
	address string
	server  *http.Server
	present atomic.Int64
}

func newInstance(t *testing.T, ip string, protocol config.Backend_Protocol) *instance {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	in := &instance{address: l.Addr().String()}
	in.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.present.Add(1)
		defer in.present.Add(-1)
		_, _ = io.Copy(w, r.Body)
	})}
	in.server.Protocols.SetHTTP1(protocol == config.Backend_HTTP1)
	in.server.Protocols.SetUnencryptedHTTP2(protocol == config.Backend_H2C)
	go func() { _ = in.server.Serve(l) }()
	t.Cleanup(func() { _ = in.server.Close() })
	return in
}

// stop kills the instance at once, as a container that gets no time.
func (in *instance) stop(t *testing.T) {
	t.Helper()
	if n := in.present.Load(); n != 0 {
		// The handler may still be about to return; a request that the proxy counts is another matter.
		eventually(t, "handlers ended", func() bool { return in.present.Load() == 0 })
	}
	_ = in.server.Close()
}

// TestDrainWaits has a stream in flight, which counts until it ends.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("stream")
	finish := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.1.30:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-finish
		_, _ = io.WriteString(w, "end")
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	h.backend(b, l.Addr().String())
	h.route("stream.test", b.GetName())
	stream := h.send(t.Context(), http.MethodGet, "stream.test", "/", "")
	eventually(t, "in flight", func() bool { return h.InFlight(b.GetName()) == 1 })
	ip := netip.MustParseAddr("127.0.1.30")

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.WaitDrained(short, ip); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a stream in flight: %v", err)
	}
	parked := h.send(t.Context(), http.MethodGet, "stream.test", "/", "")
	eventually(t, "new request parked", func() bool { return h.Waiting(b.GetName()) == 1 })
	drained := make(chan error, 1)
	go func() { drained <- h.WaitDrained(t.Context(), ip) }()
	close(finish)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if got := <-stream; got.body != "end" {
		t.Errorf("stream: %+v", got)
	}
	h.endpoints(b.GetName(), server(t, text("new")))
	if got := <-parked; got.body != "new" {
		t.Errorf("parked: %+v", got)
	}
	if err := h.WaitDrained(t.Context(), netip.MustParseAddr("127.0.1.99")); err != nil {
		t.Errorf("unknown pod: %v", err)
	}
}

// TestServeLocal hands a connection over that was accepted elsewhere.
func TestServeLocal(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("local")
	h.backend(b, server(t, text("local")))
	h.apply(config.RouteType, &config.Route{Name: "r", VirtualHosts: []*config.VirtualHost{{
		Hosts: []string{"local.default"}, Visibility: config.Visibility_CLUSTER_LOCAL,
		Rules: []*config.Rule{{Splits: []*config.Split{{Backend: b.GetName(), Weight: 1}}}},
	}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		if conn, err := l.Accept(); err == nil {
			h.ServeLocal(conn)
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for range 2 {
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: local.default\r\n\r\n")
		if _, body, _ := readResponse(t, in); body != "local" {
			t.Errorf("got %q", body)
		}
	}
	select {
	case <-returned:
		t.Error("returned before the connection was closed")
	default:
	}
	_ = conn.Close()
	<-returned
}
