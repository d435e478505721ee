package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func reference(apiVersion, kind, name string) duckv1.KReference {
	return duckv1.KReference{APIVersion: apiVersion, Kind: kind, Name: name}
}

func knativeService(name string) duckv1.KReference {
	return reference("serving.knative.dev/v1", "Service", name)
}

// mapDomain creates a domain mapping in the user's namespace and returns its URL.
func (u *user) mapDomain(domain string, ref duckv1.KReference) *apis.URL {
	u.Helper()
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: domain, Namespace: u.namespace}}
	dm.Spec.Ref = ref
	if err := u.Kube.Create(u.Context(), dm); err != nil {
		u.Fatalf("mapping %s: %v", domain, err)
	}
	return &apis.URL{Scheme: "http", Host: fmt.Sprintf("%s:%d", domain, u.HTTPPort)}
}

// claimDomain gives a domain to the user's namespace, as an administrator does.
func (u *user) claimDomain(domain string) {
	u.Helper()
	claim := newClaim(domain, u.namespace)
	if err := u.Kube.Create(u.Context(), claim); err != nil {
		u.Fatalf("claiming %s: %v", domain, err)
	}
	u.Cleanup(func() { _ = u.Kube.Delete(context.WithoutCancel(u.Context()), claim) })
}

func newClaim(domain, namespace string) *netv1alpha1.ClusterDomainClaim {
	return &netv1alpha1.ClusterDomainClaim{
		ObjectMeta: metav1.ObjectMeta{Name: domain}, Spec: netv1alpha1.ClusterDomainClaimSpec{Namespace: namespace},
	}
}

func (u *user) mapping(domain string) (*servingv1beta1.DomainMapping, error) {
	var dm servingv1beta1.DomainMapping
	err := u.Kube.Get(u.Context(), keyOf(u.namespace, domain), &dm)
	return &dm, err
}

// waitMapping waits until a mapping's condition is as wanted, in the form "<type>=<status> <reason>: <message>" of which the end is a part.
func (u *user) waitMapping(domain string, kind apis.ConditionType, status corev1.ConditionStatus, text string) *servingv1beta1.DomainMapping {
	u.Helper()
	var dm *servingv1beta1.DomainMapping
	u.wait(30*time.Second, fmt.Sprintf("%s is %s=%s with %q", domain, kind, status, text), func() (err error) {
		if dm, err = u.mapping(domain); err != nil {
			return err
		}
		c := dm.Status.GetCondition(kind)
		if dm.Status.ObservedGeneration != dm.Generation || c == nil || c.Status != status || !strings.Contains(c.Reason+": "+c.Message, text) {
			return fmt.Errorf("conditions %+v", dm.Status.Conditions)
		}
		return nil
	})
	return dm
}

// waitHost waits until a GET of url has a status and, when it is not empty, a body.
func (u *user) waitHost(url *apis.URL, status int, body string) {
	u.Helper()
	u.wait(10*time.Second, fmt.Sprintf("%s answers %d %q", url, status, body), func() error {
		a, err := u.get(url, "/")
		if err != nil || a.status != status || body != "" && a.body != body {
			return answered(a, err)
		}
		return nil
	})
}

func (u *user) deleteMapping(domain string) {
	u.Helper()
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: domain, Namespace: u.namespace}}
	if err := u.Kube.Delete(u.Context(), dm); err != nil {
		u.Fatalf("deleting mapping %s: %v", domain, err)
	}
}

// autocreateClaims lets mappings claim their domains for the rest of the test.
func (u *user) autocreateClaims() {
	u.Helper()
	patch := func(value string) error {
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config-network", Namespace: "knative-serving"}}
		err := u.Kube.Create(u.Context(), config)
		if client.IgnoreAlreadyExists(err) != nil {
			return err
		}
		body := fmt.Appendf(nil, `{"data":{"autocreate-cluster-domain-claims":%s}}`, value)
		return u.Kube.Patch(u.Context(), config, client.RawPatch("application/merge-patch+json", body))
	}
	if err := patch(`"true"`); err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() {
		if out, err := u.Weft("kubectl", "-n", "knative-serving", "patch", "configmap", "config-network", "--type=merge",
			"-p", `{"data":{"autocreate-cluster-domain-claims":null}}`); err != nil {
			u.Errorf("resetting config-network: %v\n%s", err, out)
		}
	})
}

func TestDomainMappingClaimsItsDomain(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	other := &user{T: t, Platform: u.Platform, namespace: u.namespace + "-2"}
	if err := u.Kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other.namespace}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = u.Weft("kubectl", "delete", "namespace", other.namespace, "--wait=false") })
	u.deploy("hello", env("VERSION", "first"))
	other.deploy("hello", env("VERSION", "second"))

	const domain = "claimed.example.com"
	url := u.mapDomain(domain, knativeService("hello"))
	u.waitMapping(domain, servingv1beta1.DomainMappingConditionDomainClaimed, corev1.ConditionFalse,
		`DomainAlreadyClaimed: nobody has claimed domain "claimed.example.com"`)
	u.waitHost(url, http.StatusNotFound, "")

	u.autocreateClaims()
	dm := u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	if dm.Status.URL.String() != url.String() || dm.Status.Address.URL.String() != url.String() {
		t.Errorf("status.url is %s and status.address.url %s, want both %s", dm.Status.URL, dm.Status.Address.URL, url)
	}
	// Ready means that the proxies have it: no waiting here.
	if got, want := u.mustGet(url, "/"), "hello-00001 first\n"; got != want {
		t.Errorf("the mapped host answers %q, want %q", got, want)
	}
	var seen struct {
		Host    string
		Headers http.Header
	}
	if err := json.Unmarshal([]byte(u.mustGet(url, "/headers")), &seen); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s:%d", domain, u.HTTPPort); seen.Host != want || seen.Headers["K-Original-Host"] != nil {
		t.Errorf("the revision sees host %q and K-Original-Host %q, want %q and none", seen.Host, seen.Headers["K-Original-Host"], want)
	}

	// The same domain in another namespace waits and changes nothing.
	other.mapDomain(domain, knativeService("hello"))
	other.waitMapping(domain, servingv1beta1.DomainMappingConditionDomainClaimed, corev1.ConditionFalse,
		fmt.Sprintf("DomainAlreadyClaimed: domain %q is claimed by namespace %q", domain, u.namespace))
	if got, want := u.mustGet(url, "/"), "hello-00001 first\n"; got != want {
		t.Errorf("beside a second mapping the host answers %q, want %q", got, want)
	}

	// It gets the domain when the first one goes, and nobody has it after the second.
	u.deleteMapping(domain)
	other.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	if got, want := u.mustGet(url, "/"), "hello-00001 second\n"; got != want {
		t.Errorf("after the first mapping's end the host answers %q, want %q", got, want)
	}
	other.deleteMapping(domain)
	u.waitHost(url, http.StatusNotFound, "no service at this host\n")
	u.wait(10*time.Second, "the claim is gone", func() error {
		err := u.Kube.Get(t.Context(), client.ObjectKey{Name: domain}, &netv1alpha1.ClusterDomainClaim{})
		if err == nil {
			return fmt.Errorf("it is still there")
		}
		return client.IgnoreNotFound(err)
	})

	// And again from the start, with the mapping before its service.
	u.mapDomain(domain, knativeService("late"))
	u.waitMapping(domain, servingv1beta1.DomainMappingConditionReferenceResolved, corev1.ConditionFalse,
		fmt.Sprintf(`ResolveFailed: failed to get object %s/late: services.serving.knative.dev "late" not found`, u.namespace))
	u.deploy("late", env("VERSION", "late"))
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	if got, want := u.mustGet(url, "/"), "late-00001 late\n"; got != want {
		t.Errorf("the recreated mapping answers %q, want %q", got, want)
	}
	u.deleteMapping(domain)
}

func TestDomainMappingSwitchesItsTarget(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	const domain = "switched.example.com"
	u.claimDomain(domain)
	u.deploy("one", env("VERSION", "one"), annotate("min-scale", "1"))
	u.deploy("two", env("VERSION", "two"), annotate("min-scale", "1"))
	u.deployPlain("plain")
	url := u.mapDomain(domain, knativeService("one"))
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")

	// No request is lost while the target changes.
	load := u.send(4, url, "/")
	load.waitSent(u, 50)
	for _, step := range []struct {
		ref  duckv1.KReference
		want string
	}{
		{reference("serving.knative.dev/v1", "Route", "two"), "two-00001 two\n"},
		{reference("v1", "Service", "plain"), " \n"},
		{knativeService("one"), "one-00001 one\n"},
	} {
		u.switchMapping(domain, step.ref)
		u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
		if got := u.mustGet(url, "/"); got != step.want {
			t.Errorf("mapped to %s %s the host answers %q, want %q", step.ref.Kind, step.ref.Name, got, step.want)
		}
		if step.ref.APIVersion == "v1" {
			u.checkRewritten(url, domain)
		}
		load.waitSent(u, 50)
	}
	if sent, failures := load.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), sent, failures[0])
	}

	// A target that goes takes the host with it, and brings it back.
	if err := u.Kube.Delete(t.Context(), u.service("one")); err != nil {
		t.Fatal(err)
	}
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionFalse, "ResolveFailed")
	u.waitHost(url, http.StatusNotFound, "")
	u.deploy("one", env("VERSION", "again"))
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	if got, want := u.mustGet(url, "/"), "one-00001 again\n"; got != want {
		t.Errorf("the recreated target answers %q, want %q", got, want)
	}
}

func (u *user) switchMapping(domain string, ref duckv1.KReference) {
	u.Helper()
	u.wait(10*time.Second, fmt.Sprintf("mapping %s to %s %s", domain, ref.Kind, ref.Name), func() error {
		dm, err := u.mapping(domain)
		if err != nil {
			return err
		}
		dm.Spec.Ref = ref
		return u.Kube.Update(u.Context(), dm)
	})
}

// checkRewritten checks what a server that is not Knative's sees of a request to a mapped host.
func (u *user) checkRewritten(url *apis.URL, domain string) {
	u.Helper()
	var seen struct {
		Host    string
		Headers http.Header
	}
	if err := json.Unmarshal([]byte(u.mustGet(url, "/headers")), &seen); err != nil {
		u.Fatal(err)
	}
	if want := "plain." + u.namespace + ".svc.cluster.local"; seen.Host != want {
		u.Errorf("the server sees host %q, want %q", seen.Host, want)
	}
	if got := seen.Headers["K-Original-Host"]; !slices.Equal(got, []string{domain}) {
		u.Errorf("the server sees K-Original-Host %q, want %q", got, domain)
	}
}

// deployPlain runs the test server as a pod behind a Kubernetes Service.
func (u *user) deployPlain(name string) {
	u.Helper()
	labels := map[string]string{"app": name}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: u.namespace, Labels: labels}}
	pod.Spec.Containers = []corev1.Container{{
		Name: name, Image: serverImage, Env: []corev1.EnvVar{{Name: "PORT", Value: "8080"}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}},
	}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: u.namespace}}
	service.Spec.Selector = labels
	service.Spec.Ports = []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}
	for _, o := range []client.Object{pod, service} {
		if err := u.Kube.Create(u.Context(), o); err != nil {
			u.Fatal(err)
		}
	}
	u.wait(30*time.Second, name+" is ready", func() error {
		var got corev1.Pod
		if err := u.Kube.Get(u.Context(), keyOf(u.namespace, name), &got); err != nil {
			return err
		}
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %+v", got.Status.Conditions)
	})
}

func TestDomainMappingWakesAndSplits(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	const domain = "cold.example.com"
	u.claimDomain(domain)
	u.deploy("cold", env("VERSION", "one"), annotate("window", "6s"))
	url := u.mapDomain(domain, knativeService("cold"))
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	u.waitZero("cold")
	start := time.Now()
	if got, want := u.mustGet(url, "/"), "cold-00001 one\n"; got != want {
		t.Errorf("the cold start answered %q, want %q", got, want)
	}
	t.Logf("cold start through the mapped host: %s", time.Since(start).Round(time.Millisecond))

	// The mapping follows the target's traffic.
	u.update("cold", func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Env[0].Value = "two"
		s.Spec.Traffic = []servingv1.TrafficTarget{
			{RevisionName: "cold-00001", Percent: new(int64(50))},
			{RevisionName: "cold-00002", Percent: new(int64(50)), Tag: "next"},
		}
	})
	u.wait(30*time.Second, "both revisions answer at the mapped host", func() error {
		seen := map[string]int{}
		for range 20 {
			a, err := u.get(url, "/")
			if err != nil || a.status != http.StatusOK {
				return answered(a, err)
			}
			seen[a.body]++
		}
		if seen["cold-00001 one\n"] < 8 || seen["cold-00002 two\n"] < 8 {
			return fmt.Errorf("20 requests: %v", seen)
		}
		return nil
	})

	// A tag is mapped by its Kubernetes Service.
	const tagged = "next.example.com"
	u.claimDomain(tagged)
	next := u.mapDomain(tagged, reference("v1", "Service", "next-cold"))
	u.waitMapping(tagged, apis.ConditionReady, corev1.ConditionTrue, "")
	for range 5 {
		if got, want := u.mustGet(next, "/"), "cold-00002 two\n"; got != want {
			t.Errorf("the mapped tag answers %q, want %q", got, want)
		}
	}
}

func TestDomainMappingOfARoutesHost(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("hello", env("VERSION", "route"))
	u.deploy("thief", env("VERSION", "thief"))
	domain := fmt.Sprintf("hello.%s.localhost", u.namespace)
	u.claimDomain(domain)
	u.mapDomain(domain, knativeService("thief"))
	u.waitMapping(domain, servingv1beta1.DomainMappingConditionIngressReady, corev1.ConditionUnknown,
		fmt.Sprintf("host %s belongs to route %s/hello, which is older", domain, u.namespace))
	if got, want := u.mustGet(s.Status.URL, "/"), "hello-00001 route\n"; got != want {
		t.Errorf("the route's host answers %q, want %q", got, want)
	}
	u.waitReady("hello")

	// When the route goes, the mapping has the host.
	if err := u.Kube.Delete(t.Context(), u.service("hello")); err != nil {
		t.Fatal(err)
	}
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	u.waitHost(s.Status.URL, http.StatusOK, "thief-00001 thief\n")
}

func TestDomainMappingAdmission(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	tests := []struct {
		name   string
		change func(*servingv1beta1.DomainMapping)
		want   string
	}{
		{
			"generateName", func(dm *servingv1beta1.DomainMapping) { dm.Name, dm.GenerateName = "", "made.example.com" },
			"must not set the field(s): metadata.generateName",
		},
		{
			"not a domain", func(dm *servingv1beta1.DomainMapping) { dm.Name = "nodots" },
			`invalid name "nodots": name: Invalid value: "nodots": should be a domain with at least two segments separated by dots: metadata.name`,
		},
		{
			"below the cluster's domain", func(dm *servingv1beta1.DomainMapping) { dm.Name = "a.b.svc.cluster.local" },
			`invalid name "a.b.svc.cluster.local": must not be a subdomain of cluster local domain "cluster.local": metadata.name`,
		},
		{"no name", func(dm *servingv1beta1.DomainMapping) { dm.Spec.Ref.Name = "" }, "missing field(s): spec.ref.name"},
		{"no kind", func(dm *servingv1beta1.DomainMapping) { dm.Spec.Ref.Kind = "" }, "missing field(s): spec.ref.kind"},
		{
			"no version", func(dm *servingv1beta1.DomainMapping) { dm.Spec.Ref.APIVersion = "" },
			"missing field(s): spec.ref.apiVersion",
		},
		{
			"other namespace", func(dm *servingv1beta1.DomainMapping) { dm.Spec.Ref.Namespace = "default" },
			fmt.Sprintf(`mismatched namespaces: spec.ref.namespace`+"\n"+`parent namespace: %q does not match ref: "default"`, u.namespace),
		},
	}
	for _, tt := range tests {
		dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: "refused.example.com", Namespace: u.namespace}}
		dm.Spec.Ref = knativeService("hello")
		tt.change(dm)
		if err := u.Kube.Create(t.Context(), dm); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: the error is %v, want %q in it", tt.name, err, tt.want)
		}
	}

	// What is left out is filled in.
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: "defaulted.example.com", Namespace: u.namespace}}
	dm.Spec.Ref = knativeService("hello")
	if err := u.Kube.Create(t.Context(), dm); err != nil {
		t.Fatal(err)
	}
	if dm.Spec.Ref.Namespace != u.namespace || dm.Annotations["serving.knative.dev/creator"] == "" || dm.Annotations["serving.knative.dev/lastModifier"] == "" {
		t.Errorf("the stored mapping has ref.namespace %q, annotations %v, want the namespace, creator and lastModifier", dm.Spec.Ref.Namespace, dm.Annotations)
	}
	u.wait(10*time.Second, "changing the creator is refused", func() error {
		dm, err := u.mapping(dm.Name)
		if err != nil {
			return err
		}
		dm.Annotations["serving.knative.dev/creator"] = "somebody"
		err = u.Kube.Update(u.Context(), dm)
		if err == nil || !strings.Contains(err.Error(), "annotation value is immutable: metadata.annotations.serving.knative.dev/creator") {
			return fmt.Errorf("the error is %w", err)
		}
		return nil
	})
}
