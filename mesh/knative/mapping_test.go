package knative

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"

	"github.com/weft-dev/weft/mesh/config"
)

// mapping of a domain whose claim the default namespace owns.
func mapping(domain, apiVersion, kind, name string) *servingv1beta1.DomainMapping {
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: domain, UID: "uid-1", Generation: 1}}
	dm.Spec.Ref = duckv1.KReference{APIVersion: apiVersion, Kind: kind, Namespace: "default", Name: name}
	dm.Status.SetConditions(apis.Conditions{{Type: servingv1beta1.DomainMappingConditionDomainClaimed, Status: "True"}})
	return dm
}

func toService(domain, name string) *servingv1beta1.DomainMapping {
	return mapping(domain, "serving.knative.dev/v1", "Service", name)
}

func kubernetesService(edit func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "plain"}}
	s.Spec.ClusterIP, s.Spec.Ports = "10.0.0.7", []corev1.ServicePort{{Port: 80}}
	if edit != nil {
		edit(s)
	}
	return s
}

func (w *world) reconcileMappings(domains ...string) {
	w.t.Helper()
	for _, domain := range domains {
		if err := w.reconcileMapping(w.t.Context(), types.NamespacedName{Namespace: "default", Name: domain}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// awaitMapping reads MappingChanges until the answer for a mapping is as wanted: yes for the empty text, else no for that reason.
func (w *world) awaitMapping(dm *servingv1beta1.DomainMapping, text string) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		ok, why := w.MappingProgrammed(w.t.Context(), dm)
		if ok == (text == "") && strings.Contains(why, text) {
			return
		}
		select {
		case <-w.MappingChanges():
		case <-w.Changes():
		case <-deadline:
			w.t.Fatalf("MappingProgrammed(%s) = %v %q, want text %q", dm.Name, ok, why, text)
		}
	}
}

// awaitRoute waits until a proxy holds a route as written.
func awaitRoute(t *testing.T, a *applier, name, text string) {
	t.Helper()
	want := &config.Route{}
	if err := prototext.Unmarshal([]byte(text), want); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		a.mu.Lock()
		got := a.routes[name]
		a.mu.Unlock()
		diff := cmp.Diff(want, got, protocmp.Transform())
		if diff == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("route %s at the proxy (-want +got):\n%s", name, diff)
		}
	}
}

func TestMappingFollowsTheSplitsOfItsTarget(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "r1", percent: 100})
	dm := toService("www.example.com", "hello")
	w := newWorld(t, route, dm, revision("r1", nil), revision("r2", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")

	// The mapping comes before its target.
	w.reconcileMappings("www.example.com")
	w.awaitMapping(dm, `Service "hello" has no traffic target yet`)
	w.reconcile("hello")
	w.awaitMapping(dm, "")
	awaitRoute(t, a, "domainmapping/default/www.example.com", `
		name: "domainmapping/default/www.example.com"
		virtual_hosts {
			hosts: "www.example.com"
			rules { splits { backend: "revision/default/r1" weight: 100 } }
		}`)

	// A change of the target's traffic reaches the mapping without the mapping being looked at, and does not make it unready.
	route.Status.Traffic = routeWith(t, "", "", target{revision: "r1", percent: 40}, target{revision: "r2", percent: 60}).Status.Traffic
	if err := w.client.Update(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	w.reconcile("hello")
	if ok, why := w.MappingProgrammed(t.Context(), dm); !ok {
		t.Errorf("after a change of the target's traffic: %q, want yes", why)
	}
	awaitRoute(t, a, "domainmapping/default/www.example.com", `
		name: "domainmapping/default/www.example.com"
		virtual_hosts {
			hosts: "www.example.com"
			rules { splits { backend: "revision/default/r1" weight: 40 } splits { backend: "revision/default/r2" weight: 60 } }
		}`)

	// Without the target there is no host.
	if err := w.client.Delete(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	w.reconcile("hello")
	w.awaitMapping(dm, "has no traffic target yet")
	awaitRoute(t, a, "domainmapping/default/www.example.com", `name: "domainmapping/default/www.example.com"`)
}

func TestMappingSwitchesItsTarget(t *testing.T) {
	t.Parallel()
	one := routeWith(t, "one", "http://one.localhost", target{revision: "r1", percent: 100})
	two := routeWith(t, "two", "http://two.localhost", target{revision: "r2", percent: 100})
	dm := toService("www.example.com", "one")
	w := newWorld(t, one, two, dm, revision("r1", nil), revision("r2", nil))
	w.programmed.restored()
	_, leave := w.connect("p1")
	w.reconcile("one", "two")
	w.reconcileMappings("www.example.com")
	w.awaitMapping(dm, "")

	// No proxy: the new target has to be acknowledged anew.
	leave()
	for len(w.server.Proxies()) > 0 {
		select {
		case <-w.MappingChanges():
		case <-w.Changes():
		case <-time.After(time.Millisecond):
		}
	}
	w.awaitMapping(dm, "")
	dm.Spec.Ref.Name, dm.Spec.Ref.Kind = "two", "Route"
	dm.Generation = 2
	if err := w.client.Update(t.Context(), dm); err != nil {
		t.Fatal(err)
	}
	if ok, why := w.MappingProgrammed(t.Context(), dm); ok {
		t.Errorf("before the new target is compiled: yes, want no, not %q", why)
	}
	w.reconcileMappings("www.example.com")
	a, _ := w.connect("p2")
	w.awaitMapping(dm, "")
	awaitRoute(t, a, "domainmapping/default/www.example.com", `
		name: "domainmapping/default/www.example.com"
		virtual_hosts { hosts: "www.example.com" rules { splits { backend: "revision/default/r2" weight: 100 } } }`)
}

func TestMappingToAKubernetesService(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*corev1.Service)
		want string
	}{
		{name: "with a cluster IP", edit: nil, want: ""},
		{name: "without port 80", edit: func(s *corev1.Service) { s.Spec.Ports[0].Port = 8080 }, want: `Kubernetes Service "plain" has no port 80`},
		{name: "with port 80 of UDP", edit: func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "UDP" }, want: "has no port 80"},
		{name: "headless", edit: func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, want: "has no cluster IP"},
		{name: "external name", edit: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, want: "has no cluster IP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dm := mapping("www.example.com", "v1", "Service", "plain")
			w := newWorld(t, dm, kubernetesService(tt.edit))
			w.programmed.restored()
			a, _ := w.connect("p1")
			w.reconcileMappings("www.example.com")
			w.awaitMapping(dm, tt.want)
			if tt.want != "" {
				return
			}
			awaitRoute(t, a, "domainmapping/default/www.example.com", `
				name: "domainmapping/default/www.example.com"
				virtual_hosts {
					hosts: "www.example.com"
					rules {
						splits { backend: "service/default/plain/80/tcp" weight: 100 }
						set_headers { name: "Host" value: "plain.default.svc.cluster.local" }
						set_headers { name: "K-Original-Host" value: "www.example.com" }
					}
				}`)
			if got := w.mappingsOf(t.Context(), kubernetesService(nil)); len(got) != 1 || got[0].Name != "www.example.com" {
				t.Errorf("mappings of the service = %v, want www.example.com", got)
			}
		})
	}
}

func TestMappingToThePlaceholderOfATag(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.localhost", target{revision: "r1", percent: 100},
		target{revision: "r2", percent: 0, tag: "next", url: "http://next-hello.localhost"})
	dm := mapping("next.example.com", "v1", "Service", "next-hello")
	placeholder := kubernetesService(func(s *corev1.Service) { s.Name, s.Spec.Type = "next-hello", corev1.ServiceTypeExternalName })
	w := newWorld(t, route, dm, placeholder, revision("r1", nil), revision("r2", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")
	w.reconcile("hello")
	w.reconcileMappings("next.example.com")
	w.awaitMapping(dm, "")
	awaitRoute(t, a, "domainmapping/default/next.example.com", `
		name: "domainmapping/default/next.example.com"
		virtual_hosts { hosts: "next.example.com" rules { splits { backend: "revision/default/r2" weight: 100 } } }`)
}

func TestMappingWithoutAClaimHasNoHost(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.localhost", target{revision: "r1", percent: 100})
	dm := toService("www.example.com", "hello")
	w := newWorld(t, route, dm, revision("r1", nil))
	w.programmed.restored()
	a, _ := w.connect("p1")
	w.reconcile("hello")
	w.reconcileMappings("www.example.com")
	w.awaitMapping(dm, "")

	// The claim is taken away.
	dm.Status.SetConditions(apis.Conditions{{Type: servingv1beta1.DomainMappingConditionDomainClaimed, Status: "False"}})
	if err := w.client.Update(t.Context(), dm); err != nil {
		t.Fatal(err)
	}
	w.reconcileMappings("www.example.com")
	w.awaitMapping(dm, "the domain is not claimed yet")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); len(a.hosts("domainmapping/default/www.example.com")) > 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the proxy still has the host")
		}
	}
}

func TestMappingAndRouteOfOneHost(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://shared.localhost", target{revision: "r1", percent: 100})
	dm := toService("shared.localhost", "hello")
	for name, tt := range map[string]struct {
		route, mapping int64
		ofRoute, ofDM  string
	}{
		"older route":   {route: 1, mapping: 2, ofDM: "host shared.localhost belongs to route default/hello, which is older"},
		"older mapping": {route: 2, mapping: 1, ofRoute: "host shared.localhost belongs to domain mapping default/shared.localhost, which is older"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			route, dm := route.DeepCopy(), dm.DeepCopy()
			route.CreationTimestamp, dm.CreationTimestamp = metav1.Unix(tt.route, 0), metav1.Unix(tt.mapping, 0)
			w := newWorld(t, route, dm, revision("r1", nil))
			w.programmed.restored()
			a, _ := w.connect("p1")
			w.reconcile("hello")
			w.reconcileMappings("shared.localhost")
			w.awaitMapping(dm, tt.ofDM)
			w.awaitProgrammed(route, tt.ofRoute)
			awaitHosts(t, a, "knative/default/hello", tt.ofRoute == "")
			awaitHosts(t, a, "domainmapping/default/shared.localhost", tt.ofDM == "")
		})
	}
}

func TestMappingsOfTheStartStayProgrammed(t *testing.T) {
	t.Parallel()
	route := routeWith(t, "hello", "http://hello.localhost", target{revision: "r1", percent: 100})
	route.Status.SetConditions(apis.Conditions{{Type: servingv1.RouteConditionIngressReady, Status: "True"}})
	dm := toService("www.example.com", "hello")
	dm.Status.ObservedGeneration = 1
	dm.Status.SetConditions(apis.Conditions{
		{Type: servingv1beta1.DomainMappingConditionDomainClaimed, Status: "True"},
		{Type: servingv1beta1.DomainMappingConditionIngressReady, Status: "True"},
	})
	w := newWorld(t, route, dm, revision("r1", nil))
	if ok, why := w.MappingProgrammed(t.Context(), dm); !ok {
		t.Errorf("before the first pass: %q, want yes", why)
	}
	if err := w.first(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, why := w.MappingProgrammed(t.Context(), dm); !ok {
		t.Errorf("before a proxy has connected: %q, want yes", why)
	}
	other := toService("other.example.com", "hello")
	if ok, why := w.MappingProgrammed(t.Context(), other); ok {
		t.Errorf("of a new mapping = yes, want no, not %q", why)
	}
}
