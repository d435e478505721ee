package distribute_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
	"github.com/weft-dev/weft/mesh/distribute/client"
)

// serve runs a server on a unix socket until the test ends and returns its target. stop ends it early.
func serve(t *testing.T, s *distribute.Server, socket string) (target string, stop func()) {
	t.Helper()
	lis, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(g)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(lis)
	}()
	stop = sync.OnceFunc(func() {
		g.Stop()
		<-done
	})
	t.Cleanup(stop)
	return "unix://" + socket, stop
}

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "control.sock")
}

// proxy is an Applier that records what it is given, in the form "+Type name" and "-Type name".
type proxy struct {
	synced chan struct{}

	// mu guards the rest.
	mu sync.Mutex
	// refuse, when set, is asked before each Apply.
	refuse  func(typeURL string, names []string) error
	log     []string
	held    map[string]config.Resource
	calls   int
	changed chan struct{}
}

func newProxy() *proxy {
	return &proxy{synced: make(chan struct{}, 16), held: make(map[string]config.Resource), changed: make(chan struct{})}
}

func short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

func (p *proxy) Apply(typeURL string, upserts []config.Resource, removed []string) error {
	names := make([]string, 0, len(upserts))
	for _, res := range upserts {
		names = append(names, res.GetName())
	}
	p.mu.Lock()
	refuse := p.refuse
	p.mu.Unlock()
	if refuse != nil {
		if err := refuse(typeURL, names); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	for _, res := range upserts {
		p.log = append(p.log, "+"+short(typeURL)+" "+res.GetName())
		p.held[short(typeURL)+" "+res.GetName()] = res
	}
	for _, name := range removed {
		p.log = append(p.log, "-"+short(typeURL)+" "+name)
		delete(p.held, short(typeURL)+" "+name)
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

func (p *proxy) snapshot() (log, held []string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log), slices.Sorted(maps.Keys(p.held)), p.changed
}

// await waits until the held resources are exactly want.
func (p *proxy) await(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	deadline := time.After(10 * time.Second)
	for {
		_, held, changed := p.snapshot()
		if slices.Equal(held, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("resources held (-want +got):\n%s", cmp.Diff(want, held))
		}
	}
}

// connect runs a client until the test ends. stop ends it early.
func connect(t *testing.T, target, node string, p *proxy) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- client.Run(ctx, client.Options{
			Target: target, NodeID: node, Applier: p, OnSynced: func() { p.synced <- struct{}{} }, MinBackoff: 5 * time.Millisecond,
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("client of %s: %v", node, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func within[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("timed out waiting for %s", what)
		panic("unreachable")
	}
}

// awaitAcked waits for the answer of Acked to be ok, or to contain the text.
func awaitAcked(t *testing.T, s *distribute.Server, typeURL, name, text string) {
	t.Helper()
	w := s.Watch(typeURL)
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		ok, why := s.Acked(typeURL, name, "")
		if ok == (text == "") && strings.Contains(why, text) {
			return
		}
		if _, err := w.Next(ctx); err != nil {
			t.Fatalf("Acked(%s) = %v %q, want text %q", name, ok, why, text)
		}
	}
}

// eventually polls a condition that nothing announces.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func route(name, host string) *config.Route {
	return &config.Route{Name: name, VirtualHosts: []*config.VirtualHost{{Hosts: []string{host}}}}
}

func TestChangesReachEveryProxyAndAreAcknowledged(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	must(t, s.Set(route("r1", "a")))
	if ok, why := s.Acked(config.RouteType, "r1", ""); ok || why != distribute.NotConnected {
		t.Errorf("Acked without proxies = %v, %q", ok, why)
	}
	target, _ := serve(t, s, socketPath(t))
	p1, p2 := newProxy(), newProxy()
	connect(t, target, "p1", p1)
	connect(t, target, "p2", p2)
	p1.await(t, "Route r1")
	p2.await(t, "Route r1")
	awaitAcked(t, s, config.RouteType, "r1", "")

	changed := route("r1", "b")
	must(t, s.Apply([]config.Resource{changed, route("r2", "c")}, nil))
	p1.await(t, "Route r1", "Route r2")
	awaitAcked(t, s, config.RouteType, "r1", "")
	if ok, why := s.Acked(config.RouteType, "r1", distribute.Version(changed)); !ok {
		t.Errorf("Acked with the version of the content = false, %q", why)
	}
	if ok, _ := s.Acked(config.RouteType, "r1", distribute.Version(route("r1", "a"))); ok {
		t.Error("Acked with the version of older content = true")
	}

	s.Delete(config.RouteType, "r1")
	p1.await(t, "Route r2")
	p2.await(t, "Route r2")
	if ok, _ := s.Acked(config.RouteType, "r1", ""); ok {
		t.Error("Acked of a deleted resource = true")
	}
}

func TestRoundIsMadeBeforeItBreaks(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	old := []config.Resource{
		&config.Listener{Name: "l1"}, &config.Service{Name: "s1"}, route("r1", "a"), &config.Backend{Name: "b1"}, &config.Endpoints{Name: "b1"},
	}
	must(t, s.Apply(old, nil))
	target, _ := serve(t, s, socketPath(t))
	p := newProxy()
	connect(t, target, "p", p)
	within(t, "first configuration", p.synced)
	want := []string{"+Endpoints b1", "+Backend b1", "+Route r1", "+Service s1", "+Listener l1"}
	log, _, _ := p.snapshot()
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("first order (-want +got):\n%s", diff)
	}

	must(t, s.Apply(
		[]config.Resource{route("r2", "a"), &config.Backend{Name: "b2"}, &config.Endpoints{Name: "b2"}},
		[]distribute.Key{
			{TypeURL: config.EndpointsType, Name: "b1"}, {TypeURL: config.BackendType, Name: "b1"}, {TypeURL: config.RouteType, Name: "r1"},
		},
	))
	p.await(t, "Endpoints b2", "Backend b2", "Route r2", "Service s1", "Listener l1")
	want = append(want, "+Endpoints b2", "+Backend b2", "+Route r2", "-Route r1", "-Backend b1", "-Endpoints b1")
	log, _, _ = p.snapshot()
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("order of the change (-want +got):\n%s", diff)
	}
}

func TestReconnectSendsOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	socket := socketPath(t)
	first := distribute.New(distribute.Options{})
	must(t, first.Apply([]config.Resource{route("keep", "a"), route("change", "a"), route("drop", "a")}, nil))
	target, stop := serve(t, first, socket)
	p := newProxy()
	connect(t, target, "p", p)
	within(t, "first configuration", p.synced)
	before, _, _ := p.snapshot()
	stop()

	// The control plane comes back with an empty store that fills in two steps, as after a restart.
	second := distribute.New(distribute.Options{})
	release := second.Hold("routes")
	serve(t, second, socket)
	must(t, second.Set(route("keep", "a")))
	must(t, second.Set(route("change", "b")))
	release()
	within(t, "second configuration", p.synced)
	p.await(t, "Route keep", "Route change")
	awaitAcked(t, second, config.RouteType, "keep", "")

	log, _, _ := p.snapshot()
	if diff := cmp.Diff([]string{"+Route change", "-Route drop"}, log[len(before):]); diff != "" {
		t.Errorf("changes after the reconnect (-want +got):\n%s", diff)
	}
}

func TestNothingIsSentBeforeTheFirstPass(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	a, b := s.Hold("a"), s.Hold("b")
	target, _ := serve(t, s, socketPath(t))
	p := newProxy()
	connect(t, target, "p", p)
	must(t, s.Set(route("r1", "a")))
	a()
	eventually(t, "the proxy connects", func() bool { return len(s.Proxies()) == 1 })
	if ok, why := s.Acked(config.RouteType, "r1", ""); ok || !strings.Contains(why, "proxy p") {
		t.Errorf("Acked before the first pass = %v, %q", ok, why)
	}
	b()
	p.await(t, "Route r1")
	if log, _, _ := p.snapshot(); len(log) != 1 {
		t.Errorf("log = %q, want one entry", log)
	}
}

func TestRejectionIsKeptAndDoesNotSpread(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	target, _ := serve(t, s, socketPath(t))
	p := newProxy()
	p.refuse = func(_ string, names []string) error {
		if slices.Contains(names, "bad") {
			return errors.New("host \"?\" is not a name")
		}
		return nil
	}
	connect(t, target, "p7", p)
	within(t, "first configuration", p.synced)

	must(t, s.Apply([]config.Resource{route("good1", "a"), route("bad", "?"), route("good2", "b")}, nil))
	p.await(t, "Route good1", "Route good2")
	awaitAcked(t, s, config.RouteType, "good1", "")
	awaitAcked(t, s, config.RouteType, "good2", "")
	awaitAcked(t, s, config.RouteType, "bad", `proxy p7 rejected bad: host "?" is not a name`)
	want := map[distribute.Key]string{{TypeURL: config.RouteType, Name: "bad"}: `host "?" is not a name`}
	if diff := cmp.Diff(want, s.Proxies()[0].Rejections); diff != "" {
		t.Errorf("rejections (-want +got):\n%s", diff)
	}

	p.mu.Lock()
	p.refuse = nil
	p.mu.Unlock()
	must(t, s.Set(route("bad", "c")))
	awaitAcked(t, s, config.RouteType, "bad", "")
}

func TestSlowProxyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	target, _ := serve(t, s, socketPath(t))
	slow, fast := newProxy(), newProxy()
	gate := make(chan struct{})
	slow.refuse = func(string, []string) error { <-gate; return nil }
	connect(t, target, "slow", slow)
	connect(t, target, "fast", fast)
	within(t, "first configuration", fast.synced)
	within(t, "first configuration", slow.synced)

	const changes = 2000
	for i := range changes {
		must(t, s.Set(route("r", fmt.Sprintf("h%d", i))))
	}
	last := distribute.Version(route("r", fmt.Sprintf("h%d", changes-1)))
	awaitAcked(t, s, config.RouteType, "r", "proxy slow has not acknowledged")
	if ok, _ := s.Acked(config.RouteType, "r", last); ok {
		t.Error("Acked while a proxy has not answered = true")
	}
	awaitHost(t, fast, fmt.Sprintf("h%d", changes-1))

	close(gate)
	awaitHost(t, slow, fmt.Sprintf("h%d", changes-1))
	awaitAcked(t, s, config.RouteType, "r", "")
	slow.mu.Lock()
	defer slow.mu.Unlock()
	if slow.calls > changes/2 {
		t.Errorf("slow proxy was sent %d of %d changes, want most of them coalesced", slow.calls, changes)
	}
}

func awaitHost(t *testing.T, p *proxy, host string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		r, _ := p.held["Route r"].(*config.Route)
		changed := p.changed
		p.mu.Unlock()
		if r != nil && r.GetVirtualHosts()[0].GetHosts()[0] == host {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("route is %v, want host %s", r, host)
		}
	}
}

func TestLargeConfigurationArrivesInParts(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	var all []config.Resource
	for i := range 5000 {
		all = append(all, route(fmt.Sprintf("knative/default/r%04d", i), fmt.Sprintf("r%04d.default.localhost", i)))
	}
	must(t, s.Apply(all, nil))
	target, _ := serve(t, s, socketPath(t))
	p := newProxy()
	connect(t, target, "p", p)
	within(t, "first configuration", p.synced)
	log, held, _ := p.snapshot()
	if len(held) != 5000 || len(log) != 5000 {
		t.Errorf("held %d, log %d, want 5000 of both", len(held), len(log))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls < 10 {
		t.Errorf("5000 routes came in %d parts, want at least 10", p.calls)
	}
}

func TestDepartureOfTheLastLaggardIsAChange(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	target, _ := serve(t, s, socketPath(t))
	laggard, other := newProxy(), newProxy()
	laggard.refuse = func(string, []string) error { return errors.New("no room") }
	leave := connect(t, target, "laggard", laggard)
	connect(t, target, "other", other)
	within(t, "first configuration", laggard.synced)
	within(t, "first configuration", other.synced)
	must(t, s.Set(route("r", "a")))
	awaitAcked(t, s, config.RouteType, "r", "no room")
	leave()
	awaitAcked(t, s, config.RouteType, "r", "")
}
