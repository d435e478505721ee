package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// version changes the template of a service, so that it gets a new revision that says so.
func version(value string) func(*servingv1.Service) {
	return func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "VERSION", Value: value}}
	}
}

// target is an entry of a service's traffic. An empty revision is the latest one.
func target(revision string, percent int64, tag string) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{RevisionName: revision, LatestRevision: new(revision == ""), Percent: &percent, Tag: tag}
}

func split(targets ...servingv1.TrafficTarget) option {
	return func(s *servingv1.Service) { s.Spec.Traffic = targets }
}

// waitObserved waits until a service is ready in its present generation, and nothing is left of a rollout.
func (u *user) waitObserved(name string) *servingv1.Service {
	u.Helper()
	var s *servingv1.Service
	u.wait(60*time.Second, name+" is ready in its generation", func() (err error) {
		if s, err = u.load(name); err != nil {
			return err
		}
		if !s.IsReady() {
			return fmt.Errorf("generation %d, observed %d, conditions %s", s.Generation, s.Status.ObservedGeneration, conditions(s))
		}
		return nil
	})
	return s
}

// change updates a service and waits until it is ready again.
func (u *user) change(name string, changes ...func(*servingv1.Service)) *servingv1.Service {
	u.Helper()
	u.update(name, func(s *servingv1.Service) {
		for _, c := range changes {
			c(s)
		}
	})
	return u.waitObserved(name)
}

// tagURL is where a tag of a service can be reached, nil if it has no such tag.
func tagURL(s *servingv1.Service, tag string) *apis.URL {
	for i := range s.Status.Traffic {
		if s.Status.Traffic[i].Tag == tag {
			return s.Status.Traffic[i].URL
		}
	}
	return nil
}

// waitAnswer waits until a GET has this status and a body that begins so.
func (u *user) waitAnswer(to *apis.URL, status int, prefix string) {
	u.Helper()
	u.wait(30*time.Second, fmt.Sprintf("%s answers %d %q", to, status, prefix), func() error {
		if a, err := u.getOnce(to, "/"); err != nil || a.status != status || !strings.HasPrefix(a.body, prefix) {
			return answered(a, err)
		}
		return nil
	})
}

func TestForeignServiceInThePlaceOfAPlaceholder(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	foreign := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "beta-taken"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "elsewhere.example.com"},
	}
	if err := u.Kube.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	s := u.deploy("taken", env("VERSION", "one"))
	u.update("taken", split(target("", 100, "beta")))
	u.waitCondition("taken", servingv1.ServiceConditionRoutesReady, corev1.ConditionFalse,
		`NotOwned: There is an existing placeholder Service "beta-taken" that we do not own.`)
	u.waitAnswer(s.Status.URL, http.StatusOK, "taken-00001")
	if err := u.Kube.Delete(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	s = u.waitObserved("taken")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s to see that the name is free", took)
	}
	u.waitAnswer(tagURL(s, "beta"), http.StatusOK, "taken-00001")
}

// TestRouteByHand makes a Configuration and Routes without a Service, of generated and of chosen names.
func TestRouteByHand(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	route := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "road"}}
	route.Spec.Traffic = []servingv1.TrafficTarget{{ConfigurationName: "place", Percent: new(int64(100))}}
	if err := u.Kube.Create(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	u.waitRoute("road", servingv1.RouteConditionAllTrafficAssigned, corev1.ConditionFalse,
		`ConfigurationMissing: Configuration "place" referenced in traffic not found.`)
	place := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "place"}}
	place.Spec.Template.Spec.Containers = []corev1.Container{{Image: serverImage, Env: []corev1.EnvVar{{Name: "VERSION", Value: "one"}}}}
	if err := u.Kube.Create(t.Context(), place); err != nil {
		t.Fatal(err)
	}
	r := u.waitRoute("road", servingv1.RouteConditionReady, corev1.ConditionTrue, "")
	u.waitAnswer(r.Status.URL, http.StatusOK, "place-00001 one")

	u.wait(10*time.Second, "changing the configuration", func() error {
		if err := u.Kube.Get(t.Context(), client.ObjectKeyFromObject(place), place); err != nil {
			return err
		}
		place.Spec.Template.Spec.Containers[0].Env[0].Value = "two"
		return u.Kube.Update(t.Context(), place)
	})
	u.waitAnswer(r.Status.URL, http.StatusOK, "place-00002 two")

	// A revision by its name that nobody has made yet.
	named := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, GenerateName: "lane-"}}
	named.Spec.Traffic = []servingv1.TrafficTarget{{RevisionName: "place-third", Percent: new(int64(100))}}
	if err := u.Kube.Create(t.Context(), named); err != nil {
		t.Fatal(err)
	}
	u.waitRoute(named.Name, servingv1.RouteConditionAllTrafficAssigned, corev1.ConditionFalse,
		`RevisionMissing: Revision "place-third" referenced in traffic not found.`)
	u.wait(10*time.Second, "naming the next revision", func() error {
		if err := u.Kube.Get(t.Context(), client.ObjectKeyFromObject(place), place); err != nil {
			return err
		}
		place.Spec.Template.Name = "place-third"
		place.Spec.Template.Spec.Containers[0].Env[0].Value = "three"
		return u.Kube.Update(t.Context(), place)
	})
	r = u.waitRoute(named.Name, servingv1.RouteConditionReady, corev1.ConditionTrue, "")
	u.waitAnswer(r.Status.URL, http.StatusOK, "place-third three")
}

// waitRoute waits for a condition of a route whose reason and message begin with text.
func (u *user) waitRoute(name string, kind apis.ConditionType, status corev1.ConditionStatus, text string) *servingv1.Route {
	u.Helper()
	var r servingv1.Route
	u.wait(60*time.Second, fmt.Sprintf("route %s is %s=%s %s", name, kind, status, text), func() error {
		if err := u.Kube.Get(u.Context(), keyOf(u.namespace, name), &r); err != nil {
			return err
		}
		c := r.Status.GetCondition(kind)
		if r.Status.ObservedGeneration != r.Generation || c == nil || c.Status != status || text != "" && c.Reason+": "+c.Message != text {
			return fmt.Errorf("conditions %v", r.Status.Conditions)
		}
		return nil
	})
	return &r
}

func TestNamedRevisionsAndRollback(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	name := func(revision string) func(*servingv1.Service) {
		return func(s *servingv1.Service) { s.Spec.Template.Name = revision }
	}
	s := u.deploy("named", env("VERSION", "one"), name("named-first"))
	u.change("named", version("two"), name("named-second"))
	u.waitAnswer(s.Status.URL, http.StatusOK, "named-second two")
	u.change("named", split(target("named-first", 100, "")))
	u.waitAnswer(s.Status.URL, http.StatusOK, "named-first one")
	s = u.change("named", split(target("", 100, "")))
	u.waitAnswer(s.Status.URL, http.StatusOK, "named-second two")

	u.deploy("owner", name("owner-only"))
	u.update("named", split(target("owner-only", 100, "")))
	u.waitCondition("named", servingv1.ServiceConditionRoutesReady, corev1.ConditionFalse, "RevisionNotOwned: ")
	u.update("named", split(target("named-none", 100, "")))
	u.waitCondition("named", servingv1.ServiceConditionRoutesReady, corev1.ConditionFalse,
		`RevisionMissing: Revision "named-none" referenced in traffic not found.`)
	// What worked before still does.
	u.waitAnswer(s.Status.URL, http.StatusOK, "named-second two")
	u.update("named", func(s *servingv1.Service) {
		split(target("", 100, ""))(s)
		version("three")(s)
		name("named-first")(s)
	})
	u.waitCondition("named", servingv1.ServiceConditionRoutesReady, corev1.ConditionFalse, "RevisionNameTaken: ")
	u.waitAnswer(s.Status.URL, http.StatusOK, "named-second two")
}

func TestHTTPIsRedirected(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	caller := u.deploy("caller", annotate("min-scale", "1"))
	s := u.deploy("moved", env("VERSION", "one"), split(target("", 100, "now")),
		func(s *servingv1.Service) {
			s.Annotations = map[string]string{"networking.knative.dev/httpOption": "Redirected"}
		})
	for _, to := range []*apis.URL{s.Status.URL, tagURL(s, "now")} {
		a, err := u.getOnce(to, "/a?b=c")
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("https://%s:%d/a?b=c", to.URL().Hostname(), u.HTTPSPort)
		if got := a.header.Get("Location"); a.status != http.StatusMovedPermanently || got != want {
			t.Errorf("%s answers %d with location %q, want 301 and %q", to, a.status, got, want)
		}
	}
	if got := u.mustGet(caller.Status.URL, "/fetch?url="+s.Status.Address.URL.String()); !strings.HasPrefix(got, "moved-00001") {
		t.Errorf("the cluster-local host answers %q", got)
	}
	u.change("moved", func(s *servingv1.Service) { delete(s.Annotations, "networking.knative.dev/httpOption") })
	u.waitAnswer(s.Status.URL, http.StatusOK, "moved-00001")
}

// getOnce does not follow redirections.
func (u *user) getOnce(to *apis.URL, path string) (answer, error) {
	request, err := http.NewRequestWithContext(u.Context(), http.MethodGet, to.String()+path, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	response, err := u.HTTP.Transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(body), response.Header}, err
}

// TestReadyIsReachableInTheCluster calls services from a pod in the moment in which they become ready, by all of their names.
func TestReadyIsReachableInTheCluster(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	caller := u.deploy("caller", annotate("min-scale", "1"))
	for i := range 4 {
		name := fmt.Sprintf("fresh-%d", i)
		s := u.service(name, split(target("", 100, "now")))
		if err := u.Kube.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		u.watchReady(name)
		for _, host := range []string{name, "now-" + name} {
			for _, suffix := range []string{"", ".svc", ".svc.cluster.local"} {
				if got := u.mustGet(caller.Status.URL, "/fetch?url=http://"+host+"."+u.namespace+suffix+"/"); !strings.HasPrefix(got, name+"-00001") {
					t.Errorf("%s.%s%s answers %q", host, u.namespace, suffix, got)
				}
			}
		}
	}
}

// watchReady returns as soon as the API tells that a service is ready; polling would be too late.
func (u *user) watchReady(name string) {
	u.Helper()
	var list servingv1.ServiceList
	w, err := u.Kube.Watch(u.Context(), &list, client.InNamespace(u.namespace))
	if err != nil {
		u.Fatal(err)
	}
	defer w.Stop()
	limit := time.After(60 * time.Second)
	for {
		select {
		case <-limit:
			u.Fatalf("%s is not ready within 60 s", name)
		case ev, ok := <-w.ResultChan():
			if !ok {
				u.Fatal("the watch has ended")
			}
			if s, ok := ev.Object.(*servingv1.Service); ok && s.Name == name && s.IsReady() {
				return
			}
		}
	}
}
