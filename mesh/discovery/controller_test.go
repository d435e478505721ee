package discovery

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"knative.dev/serving/pkg/apis/serving"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// sink is a Distributor that keeps what is in force, and a log of changes.
type sink struct {
	// mu guards the rest.
	mu    sync.Mutex
	held  map[distribute.Key]string
	log   []string
	calls int
}

func (s *sink) Apply(upserts []config.Resource, deletes []distribute.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	for _, res := range upserts {
		s.held[distribute.Key{TypeURL: distribute.TypeURL(res), Name: res.GetName()}] = text(res)
		s.log = append(s.log, "+"+text(res))
	}
	for _, key := range deletes {
		delete(s.held, key)
		s.log = append(s.log, "-"+key.Name)
	}
	return nil
}

func (s *sink) Hold(string) func() { return func() {} }

func (s *sink) texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, t := range s.held {
		list = append(list, t)
	}
	slices.Sort(list)
	return list
}

func newTestController(api netip.AddrPort) (*controller, *sink) {
	s := &sink{held: make(map[distribute.Key]string)}
	log := slog.New(slog.DiscardHandler)
	return &controller{
		distributor: s, log: log, gateway: newGateway(nil, netip.AddrPort{}, log), revisions: newRevisions(), services: newServices(api),
	}, s
}

func TestPodsBecomeEndpoints(t *testing.T) {
	t.Parallel()
	c, s := newTestController(netip.AddrPort{})
	events := handler(serving.RevisionLabelKey, c.pod)
	const name = `Endpoints{name:"revision/default/hello-00001" `
	events.OnAdd(newPod("a", unready), true)
	events.OnAdd(newPod("a", nil), false)
	events.OnUpdate(newPod("a", unready), newPod("a", nil))
	events.OnUpdate(nil, newPod("a", func(p *corev1.Pod) { p.Annotations = map[string]string{"changed": "yes"} }))
	events.OnAdd(newPod("b", func(p *corev1.Pod) { p.Status.PodIP = "10.207.0.6" }), false)
	events.OnAdd(newPod("other", func(p *corev1.Pod) { p.Labels = nil }), false)
	events.OnUpdate(nil, newPod("a", deleted))
	events.OnUpdate(newPod("b", func(p *corev1.Pod) { p.Status.PodIP = "10.207.0.6" }), newPod("b", func(p *corev1.Pod) { p.Labels = nil }))
	events.OnUpdate(newPod("b", func(p *corev1.Pod) { p.Labels = nil }), newPod("b", func(p *corev1.Pod) { p.Status.PodIP = "10.207.0.6" }))
	events.OnDelete(newPod("a", deleted))
	events.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "default/b", Obj: newPod("b", nil)})
	want := []string{
		"+" + name + `endpoints:{address:"10.207.0.5" port:8080 pod:"default/a"}}`,
		"+" + name + `endpoints:{address:"10.207.0.5" port:8080 pod:"default/a"} endpoints:{address:"10.207.0.6" port:8080 pod:"default/b"}}`,
		"+" + name + `endpoints:{address:"10.207.0.5" port:8080 pod:"default/a" draining:true} endpoints:{address:"10.207.0.6" port:8080 pod:"default/b"}}`,
		"+" + name + `endpoints:{address:"10.207.0.5" port:8080 pod:"default/a" draining:true}}`,
		"+" + name + `endpoints:{address:"10.207.0.5" port:8080 pod:"default/a" draining:true} endpoints:{address:"10.207.0.6" port:8080 pod:"default/b"}}`,
		"+" + name + `endpoints:{address:"10.207.0.6" port:8080 pod:"default/b"}}`,
		"-revision/default/hello-00001",
	}
	if diff := cmp.Diff(want, s.log); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if n := len(c.revisions.endpoints); n != 0 {
		t.Errorf("%d revisions are left, want none", n)
	}
}

func TestServicesAndSlicesInAnyOrder(t *testing.T) {
	t.Parallel()
	c, s := newTestController(netip.AddrPort{})
	svcs, eps := handler("", c.service), handler(discoveryv1.LabelServiceName, c.slice)
	slice := newSlice("web-1", func(s *discoveryv1.EndpointSlice) { s.Endpoints = []discoveryv1.Endpoint{endpoint("10.207.0.1", true)} })
	want := []string{
		`Backend{name:"service/default/web/80/tcp" protocol:TCP}`,
		`Endpoints{name:"service/default/web/80/tcp" endpoints:{address:"10.207.0.1" port:8080}}`,
		`Service{name:"default/web" cluster_ips:"10.208.0.7" ports:{name:"http" port:80 backend:"service/default/web/80/tcp"}}`,
	}

	eps.OnAdd(slice, true)
	if got := s.texts(); len(got) != 0 {
		t.Errorf("a slice without its service gave %q", got)
	}
	svcs.OnAdd(newService(nil), true)
	if diff := cmp.Diff(want, s.texts()); diff != "" {
		t.Errorf("slice first (-want +got):\n%s", diff)
	}

	// Another port takes the resources of the old one away.
	svcs.OnUpdate(nil, newService(func(s *corev1.ServiceSpec) { s.Ports[0].Port = 81 }))
	for _, text := range s.texts() {
		if strings.Contains(text, "/80/") {
			t.Errorf("resource of the old port is left: %s", text)
		}
	}
	svcs.OnUpdate(nil, newService(nil))
	if diff := cmp.Diff(want, s.texts()); diff != "" {
		t.Errorf("port changed back (-want +got):\n%s", diff)
	}

	svcs.OnDelete(newService(nil))
	if got := s.texts(); len(got) != 0 {
		t.Errorf("after the service was deleted: %q", got)
	}
	eps.OnDelete(slice)
	if n := len(c.services.byKey); n != 0 {
		t.Errorf("%d services are left, want none", n)
	}
}

func TestAPIServerIsWhereItIs(t *testing.T) {
	t.Parallel()
	c, s := newTestController(netip.MustParseAddrPort("127.0.0.1:16443"))
	svc := newService(nil)
	svc.Name = "kubernetes"
	handler("", c.service).OnAdd(svc, true)
	slice := newSlice("kubernetes", func(s *discoveryv1.EndpointSlice) {
		s.Labels[discoveryv1.LabelServiceName] = "kubernetes"
		s.Endpoints = []discoveryv1.Endpoint{endpoint("192.0.2.1", true)}
	})
	handler(discoveryv1.LabelServiceName, c.slice).OnAdd(slice, true)
	want := `Endpoints{name:"service/default/kubernetes/80/tcp" endpoints:{address:"127.0.0.1" port:16443}}`
	if got := s.texts(); !slices.Contains(got, want) {
		t.Errorf("resources = %q, want %s among them", got, want)
	}
}

func TestLocalGatewayIsKept(t *testing.T) {
	t.Parallel()
	api := fake.NewClientBuilder().WithScheme(scheme.Scheme).Build()
	g := newGateway(api, netip.MustParseAddrPort("10.207.0.1:8081"), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	slice, svc := &discoveryv1.EndpointSlice{}, &corev1.Service{}
	await(t, api, slice)
	await(t, api, svc)
	svc.Spec.ClusterIP = "10.208.0.2" // As the API server would.
	got := texts(CompileService(svc, []*discoveryv1.EndpointSlice{slice}))
	want := `Endpoints{name:"service/weft-system/local-gateway/80/tcp" endpoints:{address:"10.207.0.1" port:8081}}`
	if !slices.Contains(got, want) {
		t.Errorf("compiled = %q, want %s among them", got, want)
	}
	for key, value := range slice.Labels {
		if errs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(errs) > 0 {
			t.Errorf("label %s=%s is not valid: %q", key, value, errs)
		}
	}

	// Somebody deletes one and spoils the other.
	if err := api.Delete(t.Context(), slice.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	spoilt := &corev1.Service{}
	await(t, api, spoilt)
	spoilt.Spec.Selector = map[string]string{"app": "x"}
	if err := api.Update(t.Context(), spoilt); err != nil {
		t.Fatal(err)
	}
	g.changed()
	await(t, api, &discoveryv1.EndpointSlice{})
	await(t, api, svc)
	if svc.Spec.Selector != nil {
		t.Errorf("selector = %v, want none", svc.Spec.Selector)
	}
}

// await reads an object of the local gateway as soon as it exists.
func await(t *testing.T, api client.Client, obj client.Object) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		err := api.Get(t.Context(), gatewayKey, obj)
		if err == nil {
			return
		}
		if !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %T", obj)
		}
	}
}
