package domainmapping

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/servingtest"
)

const domain = "www.example.com"

// world is one reconciler over a cluster in memory. The test plays the mesh.
type world struct {
	*servingtest.Cluster
	*Reconciler
	t        *testing.T
	snapshot *config.Snapshot
	port     int
	// why is what the mesh says; empty means that everything is programmed.
	why string
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{
		Cluster: servingtest.New(t, []servingtest.Indexes{AddIndexes}, objects...),
		t:       t, snapshot: config.Default(config.Domains{Default: "localhost"}),
	}
	w.Reconciler = New(w.Store, func() route.Settings { return route.Settings{Config: w.snapshot, Port: w.port} }, w, nil)
	return w
}

func (w *world) MappingProgrammed(context.Context, *servingv1beta1.DomainMapping) (programmed bool, why string) {
	return w.why == "", w.why
}
func (w *world) MappingChanges() <-chan event.GenericEvent { return nil }

// autocreate switches automatic claims.
func (w *world) autocreate(on bool) *world {
	network := *w.snapshot.Network
	network.AutocreateClusterDomainClaims = on
	snapshot := *w.snapshot
	snapshot.Network = &network
	w.snapshot = &snapshot
	return w
}

func (w *world) reconcileIn(namespace string) {
	w.t.Helper()
	if _, err := w.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: domain}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mappingIn(namespace string) *servingv1beta1.DomainMapping {
	w.t.Helper()
	dm := &servingv1beta1.DomainMapping{}
	if err := w.Store.Get(w.t.Context(), client.ObjectKey{Namespace: namespace, Name: domain}, dm); err != nil {
		w.t.Fatal(err)
	}
	return dm
}

// claimNamespace is the namespace that owns the domain, empty when there is no claim.
func (w *world) claimNamespace() string {
	w.t.Helper()
	var claim netv1alpha1.ClusterDomainClaim
	err := w.Store.Get(w.t.Context(), client.ObjectKey{Name: domain}, &claim)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return claim.Spec.Namespace
}

func newMapping(namespace string, ref duckv1.KReference) *servingv1beta1.DomainMapping {
	ref.Namespace = namespace
	return &servingv1beta1.DomainMapping{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: domain, Generation: 1, UID: "uid-of-mapping"},
		Spec:       servingv1beta1.DomainMappingSpec{Ref: ref},
	}
}

func knativeService(name string) duckv1.KReference {
	return duckv1.KReference{APIVersion: "serving.knative.dev/v1", Kind: "Service", Name: name}
}

func newClaim(namespace string) *netv1alpha1.ClusterDomainClaim {
	return &netv1alpha1.ClusterDomainClaim{
		ObjectMeta: metav1.ObjectMeta{Name: domain}, Spec: netv1alpha1.ClusterDomainClaimSpec{Namespace: namespace},
	}
}

// newTarget is a Knative Service that is addressable at a URL.
func newTarget(t *testing.T, name, url string) *servingv1.Service {
	t.Helper()
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: name}}
	if url != "" {
		u, err := apis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		s.Status.Address = &duckv1.Addressable{URL: u}
	}
	return s
}

// conditions of a mapping as "<type>=<status> <reason>", sorted.
func conditions(dm *servingv1beta1.DomainMapping) []string {
	var out []string
	for _, c := range dm.Status.Conditions {
		out = append(out, strings.TrimSpace(string(c.Type)+"="+string(c.Status)+" "+c.Reason))
	}
	slices.Sort(out)
	return out
}

func TestConditions(t *testing.T) {
	t.Parallel()
	const address = "http://hello.default.svc.cluster.local"
	tests := []struct {
		name       string
		ref        duckv1.KReference
		secret     string
		why        string
		autocreate bool
		objects    func(*testing.T) []client.Object
		want       []string
		// message is part of the Ready condition's.
		message string
		url     string
	}{
		{
			name: "claimed by an administrator", ref: knativeService("hello"),
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{newClaim("default"), newTarget(t, "hello", address)}
			},
			want: []string{"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=True", "Ready=True", "ReferenceResolved=True"},
			url:  "http://www.example.com:8080",
		},
		{
			name: "no claim", ref: knativeService("hello"),
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{newTarget(t, "hello", address)}
			},
			want: []string{
				"CertificateProvisioned=Unknown", "DomainClaimed=False DomainAlreadyClaimed", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False DomainAlreadyClaimed", "ReferenceResolved=Unknown",
			},
			message: `nobody has claimed domain "www.example.com"`, url: "http://www.example.com:8080",
		},
		{
			name: "claimed by another namespace", ref: knativeService("hello"), autocreate: true,
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{newClaim("other"), newTarget(t, "hello", address)}
			},
			want: []string{
				"CertificateProvisioned=Unknown", "DomainClaimed=False DomainAlreadyClaimed", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False DomainAlreadyClaimed", "ReferenceResolved=Unknown",
			},
			message: `domain "www.example.com" is claimed by namespace "other"`, url: "http://www.example.com:8080",
		},
		{
			name: "no target", ref: knativeService("hello"), autocreate: true,
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False ResolveFailed", "ReferenceResolved=False ResolveFailed",
			},
			message: `failed to get object default/hello: services.serving.knative.dev "hello" not found`, url: "http://www.example.com:8080",
		},
		{
			name: "target without an address", ref: knativeService("hello"), autocreate: true,
			objects: func(t *testing.T) []client.Object { t.Helper(); return []client.Object{newTarget(t, "hello", "")} },
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False ResolveFailed", "ReferenceResolved=False ResolveFailed",
			},
			message: `address not set for Service "hello"`, url: "http://www.example.com:8080",
		},
		{
			name: "target with a path, and a percent sign", ref: knativeService("hello"), autocreate: true,
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{newTarget(t, "hello", address+"/100%25d")}
			},
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False ResolveFailed", "ReferenceResolved=False ResolveFailed",
			},
			message: `resolved URI "http://hello.default.svc.cluster.local/100%25d" contains a path`, url: "http://www.example.com:8080",
		},
		{
			name: "target outside the cluster", ref: knativeService("hello"), autocreate: true,
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{newTarget(t, "hello", "http://hello.example.com")}
			},
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False ResolveFailed", "ReferenceResolved=False ResolveFailed",
			},
			message: "must be of the form {name}.{namespace}.svc.cluster.local", url: "http://www.example.com:8080",
		},
		{
			name: "target in another namespace", ref: knativeService("hello"), autocreate: true,
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{newTarget(t, "hello", "http://hello.other.svc.cluster.local")}
			},
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False ResolveFailed", "ReferenceResolved=False ResolveFailed",
			},
			message: "must be in same namespace as DomainMapping", url: "http://www.example.com:8080",
		},
		{
			name: "Route", ref: duckv1.KReference{APIVersion: "serving.knative.dev/v1", Kind: "Route", Name: "hello"}, autocreate: true,
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				r := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "hello"}}
				r.Status.Address = newTarget(t, "hello", address).Status.Address
				return []client.Object{r}
			},
			want: []string{"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=True", "Ready=True", "ReferenceResolved=True"},
			url:  "http://www.example.com:8080",
		},
		{
			name: "Kubernetes Service", ref: duckv1.KReference{APIVersion: "v1", Kind: "Service", Name: "plain"}, autocreate: true,
			objects: func(t *testing.T) []client.Object {
				t.Helper()
				return []client.Object{&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "plain"}}}
			},
			want: []string{"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=True", "Ready=True", "ReferenceResolved=True"},
			url:  "http://www.example.com:8080",
		},
		{
			name: "no such kind", ref: duckv1.KReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "hello"}, autocreate: true,
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=False ResolveFailed", "ReferenceResolved=False ResolveFailed",
			},
			message: `Deployment of "apps/v1" cannot be mapped to`, url: "http://www.example.com:8080",
		},
		{
			name: "certificate of the user's", ref: knativeService("hello"), autocreate: true, secret: "mine",
			objects: func(t *testing.T) []client.Object { t.Helper(); return []client.Object{newTarget(t, "hello", address)} },
			want: []string{
				"CertificateProvisioned=True CertificateExternallyProvided", "DomainClaimed=True", "IngressReady=True", "Ready=True", "ReferenceResolved=True",
			},
			url: "https://www.example.com",
		},
		{
			name: "not programmed", ref: knativeService("hello"), autocreate: true, why: "no proxy is connected",
			objects: func(t *testing.T) []client.Object { t.Helper(); return []client.Object{newTarget(t, "hello", address)} },
			want: []string{
				"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=True", "IngressReady=Unknown IngressNotConfigured",
				"Ready=Unknown IngressNotConfigured", "ReferenceResolved=True",
			},
			message: "no proxy is connected", url: "http://www.example.com:8080",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dm := newMapping("default", tt.ref)
			objects := []client.Object{dm}
			if tt.objects != nil {
				objects = append(objects, tt.objects(t)...)
			}
			w := newWorld(t, objects...).autocreate(tt.autocreate)
			w.why, w.port = tt.why, 8080
			if tt.secret != "" {
				w.port = 443
				servingtest.Change(t, w.Cluster, domain, func(dm *servingv1beta1.DomainMapping) {
					dm.Spec.TLS = &servingv1beta1.SecretTLS{SecretName: tt.secret}
				})
			}
			w.reconcileIn("default")
			writes := w.Writes()
			w.reconcileIn("default")
			if w.Writes() != writes {
				t.Error("a second look wrote again")
			}
			got := w.mappingIn("default")
			if diff := cmp.Diff(tt.want, conditions(got)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if message := got.Status.GetCondition(apis.ConditionReady).GetMessage(); !strings.Contains(message, tt.message) {
				t.Errorf("Ready says %q, want %q in it", message, tt.message)
			}
			if got.Status.ObservedGeneration != got.Generation {
				t.Errorf("observedGeneration is %d, want %d", got.Status.ObservedGeneration, got.Generation)
			}
			if url, address := got.Status.URL.String(), got.Status.Address.URL.String(); url != tt.url || address != tt.url {
				t.Errorf("url is %q, address %q, want %q", url, address, tt.url)
			}
		})
	}
}

func TestClaimComesAndGoesWithTheMapping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newMapping("default", knativeService("hello")), newTarget(t, "hello", "http://hello.default.svc.cluster.local")).autocreate(true)
	w.reconcileIn("default")
	claim := &netv1alpha1.ClusterDomainClaim{}
	if err := w.Store.Get(t.Context(), client.ObjectKey{Name: domain}, claim); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{serving.DomainMappingUIDLabelKey: "uid-of-mapping", serving.DomainMappingNamespaceLabelKey: "default"}
	if diff := cmp.Diff(want, claim.Labels); diff != "" || claim.Spec.Namespace != "default" {
		t.Errorf("the claim is for namespace %q, labels (-want +got):\n%s", claim.Spec.Namespace, diff)
	}
	if want := []string{`Normal Created Created cluster domain claim "www.example.com"`}; !slices.Equal(w.Events(), want) {
		t.Errorf("events are %q, want %q", w.Events(), want)
	}

	// A second mapping of the domain has to wait.
	if err := w.Store.Create(t.Context(), newMapping("other", knativeService("hello"))); err != nil {
		t.Fatal(err)
	}
	w.reconcileIn("other")
	if c := w.mappingIn("other").Status.GetCondition(servingv1beta1.DomainMappingConditionDomainClaimed); c.GetReason() != "DomainAlreadyClaimed" {
		t.Errorf("the second mapping's DomainClaimed is %v, want DomainAlreadyClaimed", c)
	}

	// Its deletion does not take the first one's claim.
	w.delete("other")
	w.reconcileIn("other")
	if got := w.claimNamespace(); got != "default" {
		t.Fatalf("the claim is of namespace %q, want default", got)
	}

	// The first one's does, also when claims are not automatic any more, and a mapping of another namespace can have the domain then.
	if err := w.Store.Create(t.Context(), newMapping("other", knativeService("hello"))); err != nil {
		t.Fatal(err)
	}
	w.reconcileIn("other")
	w.autocreate(false)
	w.delete("default")
	w.reconcileIn("default")
	if got := w.claimNamespace(); got != "" {
		t.Errorf("the claim is of namespace %q, want none", got)
	}
	err := w.Store.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: domain}, &servingv1beta1.DomainMapping{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("reading the deleted mapping: %v, want not found", err)
	}
	var freed []string
	for _, r := range w.ofClaim(t.Context(), claim) {
		freed = append(freed, r.String())
	}
	if want := []string{"other/" + domain}; !slices.Equal(freed, want) {
		t.Fatalf("the claim's end brings back %q, want %q", freed, want)
	}
	w.autocreate(true)
	w.reconcileIn("other")
	if got := w.claimNamespace(); got != "other" {
		t.Errorf("the claim is of namespace %q, want other", got)
	}
}

func (w *world) delete(namespace string) {
	w.t.Helper()
	if err := w.Store.Delete(w.t.Context(), w.mappingIn(namespace)); err != nil {
		w.t.Fatal(err)
	}
}

func TestClaimOfAnAdministratorStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newMapping("default", knativeService("hello")), newClaim("default")).autocreate(true)
	w.reconcileIn("default")
	w.delete("default")
	w.reconcileIn("default")
	if got := w.claimNamespace(); got != "default" {
		t.Errorf("the claim is of namespace %q, want default", got)
	}
}

func TestClaimLeftBehindIsTakenOver(t *testing.T) {
	t.Parallel()
	left := newClaim("default")
	left.Labels = map[string]string{serving.DomainMappingUIDLabelKey: "older", serving.DomainMappingNamespaceLabelKey: "default"}
	w := newWorld(t, newMapping("default", knativeService("hello")), left).autocreate(true)
	w.reconcileIn("default")
	w.delete("default")
	w.reconcileIn("default")
	if got := w.claimNamespace(); got != "" {
		t.Errorf("the claim is of namespace %q, want none", got)
	}
}

func TestClaimThatIsTakenAway(t *testing.T) {
	t.Parallel()
	claim := newClaim("default")
	w := newWorld(t, newMapping("default", knativeService("hello")), claim, newTarget(t, "hello", "http://hello.default.svc.cluster.local"))
	w.reconcileIn("default")
	if dm := w.mappingIn("default"); !dm.IsReady() {
		t.Fatalf("conditions are %q, want ready", conditions(dm))
	}
	if err := w.Store.Delete(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	w.reconcileIn("default")
	want := []string{
		"CertificateProvisioned=True TLSNotEnabled", "DomainClaimed=False DomainAlreadyClaimed", "IngressReady=Unknown IngressNotConfigured",
		"Ready=False DomainAlreadyClaimed", "ReferenceResolved=True",
	}
	if diff := cmp.Diff(want, conditions(w.mappingIn("default"))); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

// refusing is a client that cannot create claims.
type refusing struct{ client.Client }

func (r refusing) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if _, ok := o.(*netv1alpha1.ClusterDomainClaim); ok {
		return errors.New("no claims today, 100% sure")
	}
	return r.Client.Create(ctx, o, opts...)
}

func TestClaimThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newMapping("default", knativeService("hello"))).autocreate(true)
	w.store.Client = refusing{w.store.Client}
	_, err := w.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "default", Name: domain}})
	if err == nil {
		t.Error("no error, want one so that it is tried again")
	}
	c := w.mappingIn("default").Status.GetCondition(servingv1beta1.DomainMappingConditionDomainClaimed)
	if c.GetReason() != "DomainClaimFailed" || c.GetMessage() != "no claims today, 100% sure" {
		t.Errorf("DomainClaimed is %v, want DomainClaimFailed with the error", c)
	}
}

func TestChangesOfWhatAMappingRestsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newMapping("default", knativeService("hello")), newMapping("other", knativeService("hello")))
	for name, tt := range map[string]struct {
		got  []reconcile.Request
		want []string
	}{
		"its target":              {got: w.ofTarget(t.Context(), newTarget(t, "hello", "")), want: []string{"default/" + domain}},
		"something else":          {got: w.ofTarget(t.Context(), newTarget(t, "bye", ""))},
		"the claim of its domain": {got: w.ofClaim(t.Context(), newClaim("default")), want: []string{"default/" + domain, "other/" + domain}},
	} {
		var got []string
		for _, r := range tt.got {
			got = append(got, r.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("a change of %s brings back %q, want %q", name, got, tt.want)
		}
	}
}
