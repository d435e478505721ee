package knative

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
	meshclient "github.com/weft-dev/weft/mesh/distribute/client"
)

// applier is a proxy that records the order of changes.
type applier struct {
	// mu guards the rest.
	mu     sync.Mutex
	log    []string
	routes map[string]*config.Route
	refuse error
}

func (a *applier) Apply(typeURL string, upserts []config.Resource, removed []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return a.refuse
	}
	for _, res := range upserts {
		a.log = append(a.log, "+"+res.GetName())
		if r, ok := res.(*config.Route); ok {
			a.routes[r.GetName()] = r
		}
	}
	for _, name := range removed {
		a.log = append(a.log, "-"+name)
		if typeURL == config.RouteType {
			delete(a.routes, name)
		}
	}
	return nil
}

func (a *applier) hosts(route string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var hosts []string
	for _, vh := range a.routes[route].GetVirtualHosts() {
		hosts = append(hosts, vh.GetHosts()...)
	}
	return hosts
}

// world is a Controller over a fake API, with a real distributor.
type world struct {
	*Controller
	t      *testing.T
	server *distribute.Server
	target string
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), servingv1.AddToScheme(scheme), servingv1beta1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	server := distribute.New(distribute.Options{})
	socket := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	server.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	t.Cleanup(func() { g.Stop(); <-done })

	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	w := &world{Controller: newController(api, server, Options{}), t: t, server: server, target: "unix://" + socket}
	ctx, cancel := context.WithCancel(t.Context())
	observed := make(chan error, 1)
	go func() { observed <- w.observe(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-observed; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) connect(node string) (a *applier, leave func()) {
	w.t.Helper()
	a = &applier{routes: make(map[string]*config.Route)}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- meshclient.Run(ctx, meshclient.Options{Target: w.target, NodeID: node, Applier: a}) }()
	leave = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(leave)
	return a, leave
}

func (w *world) reconcile(names ...string) {
	w.t.Helper()
	for _, name := range names {
		req := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: name}}
		if _, err := w.Reconcile(w.t.Context(), req); err != nil {
			w.t.Fatal(err)
		}
	}
}

// awaitProgrammed reads Changes until the answer for a Route is as wanted: yes for the empty text, else no for that reason.
func (w *world) awaitProgrammed(route *servingv1.Route, text string) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		ok, why := w.RouteProgrammed(route)
		if ok == (text == "") && strings.Contains(why, text) {
			return
		}
		select {
		case <-w.Changes():
		case <-deadline:
			w.t.Fatalf("RouteProgrammed(%s) = %v %q, want text %q", route.Name, ok, why, text)
		}
	}
}

func TestRouteIsProgrammedWhenProxiesHaveIt(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	w := newWorld(t, route, revision("hello-00001", nil))
	w.programmed.restored()
	w.awaitProgrammed(route, "has not been compiled")
	w.reconcile("hello")
	w.awaitProgrammed(route, distribute.NotConnected)
	a, leave := w.connect("p1")
	w.awaitProgrammed(route, "")
	want := []string{"+revision/default/hello-00001", "+knative/default/hello"}
	if !slices.Equal(a.log, want) {
		t.Errorf("order at the proxy = %q, want %q", a.log, want)
	}

	// A proxy that restarts does not take the Route back.
	leave()
	for len(w.server.Proxies()) > 0 {
		select {
		case <-w.Changes():
		case <-time.After(time.Millisecond):
		}
	}
	w.awaitProgrammed(route, "")

	// But other content has to be acknowledged anew.
	next := routeWith(t, "hello", "http://hello.example.com", target{revision: "hello-00001", percent: 100})
	w.awaitProgrammed(next, distribute.NotConnected)
}

func TestRouteOfAMissingRevisionWaitsForIt(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	w := newWorld(t, route)
	w.programmed.restored()
	w.connect("p1")
	w.reconcile("hello")
	w.awaitProgrammed(route, "revision/default/hello-00001 has not been compiled")
	rev := revision("hello-00001", nil)
	if err := w.client.Create(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	requests := w.routesOf(t.Context(), rev)
	if len(requests) != 1 || requests[0].Name != "hello" {
		t.Fatalf("routes of the new revision = %v, want hello", requests)
	}
	w.reconcile("hello")
	w.awaitProgrammed(route, "")
}

func TestAnnotationThatMeansNothingIsTheReason(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	route.Annotations = map[string]string{"networking.knative.dev/http-protocol": "Sometimes"}
	w := newWorld(t, route, revision("hello-00001", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")
	w.reconcile("hello")
	w.awaitProgrammed(route, "incorrect http-protocol annotation: sometimes")
	// It is served all the same.
	for !slices.Contains(a.hosts("knative/default/hello"), "hello.default.localhost") {
		<-w.Changes()
	}
}

func TestPolicyChangesAllRoutes(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	w := newWorld(t, route, routeWith(t, "other", ""), revision("hello-00001", nil))
	w.programmed.restored()
	w.connect("p1")
	w.reconcile("hello")
	w.awaitProgrammed(route, "")
	w.policy = func() Policy { return Policy{TagHeaders: true} }
	// Until the Route is compiled anew, it is not as it should be.
	w.awaitProgrammed(route, "a newer version of knative/default/hello is on its way")

	queue := &collected{}
	all := w.every(func() client.ObjectList { return &servingv1.RouteList{} })
	all.Generic(t.Context(), event.GenericEvent{Object: &servingv1.Route{}}, queue)
	if want := []string{"hello", "other"}; !slices.Equal(queue.names, want) {
		t.Errorf("routes after a change are %q, want %q", queue.names, want)
	}
	w.reconcile(queue.names...)
	w.awaitProgrammed(route, "")
}

// collected is a queue that remembers names.
type collected struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	names []string
}

func (c *collected) Add(r reconcile.Request) {
	c.names = append(c.names, r.Name)
	slices.Sort(c.names)
}

func TestRejectionIsTheReason(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	w := newWorld(t, route, revision("hello-00001", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")
	w.reconcile("hello")
	w.awaitProgrammed(route, "")
	a.mu.Lock()
	a.refuse = context.DeadlineExceeded
	a.mu.Unlock()
	next := route.DeepCopy()
	next.Status.URL = &apis.URL{Scheme: "http", Host: "other.localhost"}
	if err := w.client.Update(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	w.reconcile("hello")
	w.awaitProgrammed(next, "proxy p1 rejected knative/default/hello: context deadline exceeded")
}

func TestBackendsGoWithTheLastRouteThatNamesThem(t *testing.T) {
	t.Parallel()
	both := []target{{revision: "r1", percent: 50}, {revision: "r2", percent: 50}}
	one := routeWith(t, "one", "http://one.localhost", both...)
	two := routeWith(t, "two", "http://two.localhost", target{revision: "r2", percent: 100})
	w := newWorld(t, one, two, revision("r1", nil), revision("r2", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")
	w.reconcile("one", "two")
	w.awaitProgrammed(one, "")
	w.awaitProgrammed(two, "")
	if err := w.client.Delete(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	w.reconcile("one")
	two.Status.Traffic[0].Percent = new(int64(99))
	if err := w.client.Update(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	w.reconcile("two")
	w.awaitProgrammed(two, "")
	if ok, _ := w.server.Acked(config.BackendType, config.RevisionBackend("default", "r2"), ""); !ok {
		t.Error("backend r2 went though route two names it")
	}
	w.awaitProgrammed(one, "has not been compiled")
	a.mu.Lock()
	defer a.mu.Unlock()
	gone := slices.Index(a.log, "-knative/default/one")
	if backend := slices.Index(a.log, "-revision/default/r1"); gone < 0 || backend < gone {
		t.Errorf("log %q, want the route removed and then backend r1", a.log)
	}
}

func TestOldestRouteKeepsAHost(t *testing.T) {
	t.Parallel()
	old := routeWith(t, "z-old", "http://shared.localhost", target{revision: "r1", percent: 100})
	old.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	young := routeWith(t, "a-young", "http://shared.localhost", target{revision: "r1", percent: 100})
	young.CreationTimestamp = metav1.NewTime(time.Unix(2000, 0))
	w := newWorld(t, old, young, revision("r1", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")

	// The younger comes first and has to give the host up.
	w.reconcile("a-young")
	w.awaitProgrammed(young, "")
	w.reconcile("z-old")
	w.awaitProgrammed(old, "")
	w.awaitProgrammed(young, "host shared.localhost belongs to route default/z-old, which is older")
	awaitHosts(t, a, "knative/default/z-old", true)
	awaitHosts(t, a, "knative/default/a-young", false)

	// And gets it back when the older goes.
	if err := w.client.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	w.reconcile("z-old")
	w.awaitProgrammed(young, "")
	awaitHosts(t, a, "knative/default/a-young", true)
}

func awaitHosts(t *testing.T, a *applier, route string, want bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for slices.Contains(a.hosts(route), "shared.localhost") != want {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("hosts of %s = %q, want shared.localhost among them: %v", route, a.hosts(route), want)
		}
	}
}

func TestRoutesOfTheStartStayProgrammed(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	route.Status.SetConditions(apis.Conditions{{Type: servingv1.RouteConditionIngressReady, Status: "True"}})
	w := newWorld(t, route, revision("hello-00001", nil))
	if ok, why := w.RouteProgrammed(route); !ok {
		t.Errorf("before the first pass: %q, want yes", why)
	}
	if err := w.first(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, why := w.RouteProgrammed(route); !ok {
		t.Errorf("before a proxy has connected: %q, want yes", why)
	}
	other := routeWith(t, "other", "http://other.localhost", target{revision: "hello-00001", percent: 100})
	if ok, why := w.RouteProgrammed(other); ok {
		t.Errorf("of a new route = yes, want no, not %q", why)
	}
}
