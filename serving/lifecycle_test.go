package serving_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/serving/names"
	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/servingtest"
)

const (
	isTrue = "True "
	ready  = "Ready"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.condition("hello", ready, "Unknown RevisionMissing")
	if got := w.state("hello-00001"); got != "active" {
		t.Errorf("routing state of a new revision is %q, want active: its route is known", got)
	}

	w.mesh.why = "the gateway has not acknowledged it"
	w.start("hello-00001")
	s := w.condition("hello", "RoutesReady", "Unknown IngressNotConfigured")
	if got := s.Status.GetCondition("RoutesReady").Message; got != w.mesh.why {
		t.Errorf("the message of RoutesReady is %q, want what the mesh says, %q", got, w.mesh.why)
	}

	w.mesh.why = ""
	w.settle()
	s = w.condition("hello", ready, isTrue)
	if s.Status.ObservedGeneration != s.Generation {
		t.Errorf("observedGeneration is %d, want %d", s.Status.ObservedGeneration, s.Generation)
	}
	if got, want := s.Status.URL.String(), "http://hello.default.localhost:8080"; got != want {
		t.Errorf("url is %q, want %q", got, want)
	}
	if got, want := s.Status.Address.URL.String(), "http://hello.default.svc.cluster.local"; got != want {
		t.Errorf("address is %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{"hello-00001:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic (-want +got):\n%s", diff)
	}
	for _, want := range []string{
		`Normal Created Created Configuration "hello"`, `Normal Created Created Route "hello"`,
		`Normal Created Created Revision "hello-00001"`, `Normal ConfigurationReady Configuration becomes ready`,
		`Normal RevisionReady Revision becomes ready upon all resources being ready`,
		`Normal Created Created placeholder service "hello"`,
	} {
		if !slices.Contains(w.Events(), want) {
			t.Errorf("no Event %q in %q", want, w.Events())
		}
	}
}

func TestNewRevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.start("hello-00001")
	w.update("hello", func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Image = "example.com/hello:2" })

	s := w.condition("hello", ready, "Unknown Deploying")
	if s.Status.LatestCreatedRevisionName != "hello-00002" || s.Status.LatestReadyRevisionName != "hello-00001" {
		t.Errorf("latest created and ready are %q and %q, want hello-00002 and hello-00001",
			s.Status.LatestCreatedRevisionName, s.Status.LatestReadyRevisionName)
	}
	if diff := cmp.Diff([]string{"hello-00001:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic before the new revision is ready (-want +got):\n%s", diff)
	}

	w.mesh.why = "not yet"
	w.start("hello-00002")
	if diff := cmp.Diff([]string{"hello-00002:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic when the new revision is ready (-want +got):\n%s", diff)
	}
	if got := w.state("hello-00001"); got != "active" {
		t.Errorf("routing state of the old revision is %q while the mesh still sends it requests, want active", got)
	}
	w.mesh.why = ""
	w.settle()
	w.condition("hello", ready, isTrue)
	if got := w.state("hello-00001"); got != "reserve" {
		t.Errorf("routing state of the old revision is %q, want reserve", got)
	}
	pa := servingtest.Get[autoscalingv1alpha1.PodAutoscaler](t, w.Cluster, "hello-00001")
	if pa.Spec.Reachability != autoscalingv1alpha1.ReachabilityUnreachable {
		t.Errorf("reachability of the old revision is %q, want Unreachable", pa.Spec.Reachability)
	}
}

func TestLabelsOnlyMakeNoRevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.start("hello-00001")
	w.update("hello", func(s *servingv1.Service) { s.Labels = map[string]string{"team": "blue"} })

	s := w.condition("hello", ready, isTrue)
	if s.Status.LatestCreatedRevisionName != "hello-00001" {
		t.Errorf("a label made revision %q", s.Status.LatestCreatedRevisionName)
	}
	for _, o := range []client.Object{
		servingtest.Get[servingv1.Configuration](t, w.Cluster, "hello"), servingtest.Get[servingv1.Route](t, w.Cluster, "hello"),
		servingtest.Get[corev1.Service](t, w.Cluster, "hello"),
	} {
		if got := o.GetLabels()["team"]; got != "blue" {
			t.Errorf("label team of %T is %q, want blue", o, got)
		}
	}
}

func TestScaleToZeroStaysReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.start("hello-00001")
	servingtest.Change(t, w.Cluster, names.Deployment("hello-00001"), func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) })
	servingtest.Report(t, w.Cluster, names.Deployment("hello-00001"), func(d *appsv1.Deployment) {
		d.Status.Replicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = 0, 0, 0
	})
	w.scale("hello-00001", 0)
	w.settle()

	w.condition("hello", ready, isTrue)
	rev := servingtest.Get[servingv1.Revision](t, w.Cluster, "hello-00001")
	if active := rev.Status.GetCondition(servingv1.RevisionConditionActive); !active.IsFalse() || active.Reason != "NoTraffic" {
		t.Errorf("Active is %v, want False with reason NoTraffic", active)
	}
	if got := *rev.Status.ActualReplicas; got != 0 {
		t.Errorf("actualReplicas is %d, want 0", got)
	}
	d := servingtest.Get[appsv1.Deployment](t, w.Cluster, names.Deployment("hello-00001"))
	if *d.Spec.Replicas != 0 {
		t.Errorf("replicas are %d, want 0: the number belongs to the autoscaler", *d.Spec.Replicas)
	}
}

func TestNamedRevisionAndRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	named := func(name, image string) func(*servingv1.Service) {
		return func(s *servingv1.Service) {
			s.Spec.Template.Name = name
			s.Spec.Template.Spec.Containers[0].Image = image
		}
	}
	w.apply("hello", named("hello-blue", "example.com/blue"))
	w.start("hello-blue")
	w.update("hello", named("hello-green", "example.com/green"))
	w.start("hello-green")
	if diff := cmp.Diff([]string{"hello-green:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic after the second revision (-want +got):\n%s", diff)
	}

	w.update("hello", named("hello-blue", "example.com/blue"))
	s := w.condition("hello", ready, isTrue)
	if s.Status.LatestReadyRevisionName != "hello-blue" {
		t.Errorf("latest ready revision after the rollback is %q, want hello-blue", s.Status.LatestReadyRevisionName)
	}
	if diff := cmp.Diff([]string{"hello-blue:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic after the rollback (-want +got):\n%s", diff)
	}

	w.update("hello", named("hello-blue", "example.com/other"))
	w.condition("hello", "ConfigurationsReady", "False RevisionFailed")
	w.condition("hello", "RoutesReady", "False RevisionNameTaken")
	if diff := cmp.Diff([]string{"hello-blue:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic after a name was used twice (-want +got):\n%s", diff)
	}
}

func TestTrafficSplit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.start("hello-00001")
	w.update("hello", func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Image = "example.com/hello:2"
		s.Spec.Traffic = []servingv1.TrafficTarget{
			{RevisionName: "hello-00001", Percent: new(int64(80)), Tag: "current"},
			{LatestRevision: new(true), Percent: new(int64(20)), Tag: "next"},
		}
	})
	if diff := cmp.Diff([]string{"hello-00001:80:current", "hello-00001:20:next"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic before the new revision is ready (-want +got):\n%s", diff)
	}
	w.start("hello-00002")
	s := w.condition("hello", ready, isTrue)
	if diff := cmp.Diff([]string{"hello-00001:80:current", "hello-00002:20:next"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic (-want +got):\n%s", diff)
	}
	if got, want := s.Status.Traffic[1].URL.String(), "http://next-hello.default.localhost:8080"; got != want {
		t.Errorf("url of the tag is %q, want %q", got, want)
	}
	for _, name := range []string{"hello", "current-hello", "next-hello"} {
		placeholder := servingtest.Get[corev1.Service](t, w.Cluster, name)
		if placeholder.Spec.ExternalName != route.DefaultLocalGateway {
			t.Errorf("placeholder %s leads to %q, want %q", name, placeholder.Spec.ExternalName, route.DefaultLocalGateway)
		}
	}

	w.update("hello", func(s *servingv1.Service) { s.Spec.Traffic[1].Tag = "" })
	err := w.Store.Get(t.Context(), client.ObjectKey{Namespace: servingtest.Namespace, Name: "next-hello"}, &corev1.Service{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("placeholder of a tag that is gone: %v, want not found", err)
	}
}

func TestClusterLocal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", func(s *servingv1.Service) {
		s.Labels = map[string]string{route.VisibilityLabel: serving.VisibilityClusterLocal}
	})
	w.start("hello-00001")
	s := w.condition("hello", ready, isTrue)
	if s.Status.URL.String() != "http://hello.default.svc.cluster.local" || s.Status.URL.String() != s.Status.Address.URL.String() {
		t.Errorf("url is %q and address %q, want both of the cluster", s.Status.URL, s.Status.Address.URL)
	}
	if label, ok := servingtest.Get[corev1.Service](t, w.Cluster, "hello").Labels[route.VisibilityLabel]; ok {
		t.Errorf("the placeholder has visibility %q, want none: it is the user's to set", label)
	}

	w.update("hello", func(s *servingv1.Service) { s.Labels = nil })
	if got, want := w.condition("hello", ready, isTrue).Status.URL.String(), "http://hello.default.localhost:8080"; got != want {
		t.Errorf("url of the public Service is %q, want %q", got, want)
	}
}

func TestClusterLocalTag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", func(s *servingv1.Service) {
		s.Spec.Traffic = []servingv1.TrafficTarget{{LatestRevision: new(true), Percent: new(int64(100)), Tag: "inner"}}
	})
	w.start("hello-00001")
	servingtest.Change(t, w.Cluster, "inner-hello", func(s *corev1.Service) { s.Labels[route.VisibilityLabel] = serving.VisibilityClusterLocal })
	w.settle()
	s := w.condition("hello", ready, isTrue)
	if got, want := s.Status.Traffic[0].URL.String(), "http://inner-hello.default.svc.cluster.local"; got != want {
		t.Errorf("url of the tag is %q, want %q", got, want)
	}
	if got, want := s.Status.URL.String(), "http://hello.default.localhost:8080"; got != want {
		t.Errorf("url of the Service is %q, want %q", got, want)
	}
}

// TestEverythingIsOwned follows the owners of all that a Service makes: the garbage collector deletes by them.
func TestEverythingIsOwned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.start("hello-00001")
	owners := map[client.Object]string{
		servingtest.Get[servingv1.Configuration](t, w.Cluster, "hello"):                 "Service hello",
		servingtest.Get[servingv1.Route](t, w.Cluster, "hello"):                         "Service hello",
		servingtest.Get[corev1.Service](t, w.Cluster, "hello"):                          "Route hello",
		servingtest.Get[servingv1.Revision](t, w.Cluster, "hello-00001"):                "Configuration hello",
		servingtest.Get[appsv1.Deployment](t, w.Cluster, "hello-00001-deployment"):      "Revision hello-00001",
		servingtest.Get[autoscalingv1alpha1.PodAutoscaler](t, w.Cluster, "hello-00001"): "Revision hello-00001",
	}
	for o, want := range owners {
		owner := metav1.GetControllerOf(o)
		if owner == nil || owner.Kind+" "+owner.Name != want || owner.BlockOwnerDeletion == nil || !*owner.BlockOwnerDeletion {
			t.Errorf("%T %s is owned by %v, want %s, which waits for it", o, o.GetName(), owner, want)
		}
		if len(o.GetFinalizers()) > 0 {
			t.Errorf("%T %s has finalizers %v, want none", o, o.GetName(), o.GetFinalizers())
		}
	}
}

func TestRouteAndConfigurationByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "conf"}}
	c.Spec.Template.Spec.Containers = []corev1.Container{{Image: "example.com/hello"}}
	c.SetDefaults(w.snapshot.ToContext(t.Context()))
	if err := w.Store.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := w.state("conf-00001"); got != "pending" {
		t.Errorf("routing state without a route is %q, want pending", got)
	}
	w.start("conf-00001")
	r := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "road"}}
	r.Spec.Traffic = []servingv1.TrafficTarget{{ConfigurationName: "conf", LatestRevision: new(true), Percent: new(int64(100))}}
	if err := w.Store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := servingtest.Get[servingv1.Route](t, w.Cluster, "road"); !got.IsReady() {
		t.Errorf("route is not ready: %v", got.Status.Conditions)
	}
	if got := w.state("conf-00001"); got != "active" {
		t.Errorf("routing state with a route is %q, want active", got)
	}
	if err := w.Store.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.forget("road")
	if got := w.state("conf-00001"); got != "reserve" {
		t.Errorf("routing state after the route is gone is %q, want reserve", got)
	}
}

func TestGradualRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", func(s *servingv1.Service) { s.Annotations = map[string]string{serving.RolloutDurationKey: "60s"} })
	w.start("hello-00001")
	w.condition("hello", ready, isTrue)

	w.update("hello", func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Image = "example.com/hello:2" })
	w.mesh.why = "not yet"
	w.start("hello-00002")
	w.mesh.why = ""
	w.now = w.now.Add(9 * time.Second) // the mesh takes that long, so that no step is shorter
	w.settle()
	w.condition("hello", "RoutesReady", "Unknown RolloutInProgress")
	if diff := cmp.Diff([]string{"hello-00001:99", "hello-00002:1"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic at the beginning (-want +got):\n%s", diff)
	}
	if w.state("hello-00001") != "active" || w.state("hello-00002") != "active" {
		t.Errorf("routing states are %s and %s, want both active", w.state("hello-00001"), w.state("hello-00002"))
	}
	// 51 s are left, in steps of 9 s and of a sixth of the rest.
	w.now = w.now.Add(9 * time.Second)
	w.settle()
	w.condition("hello", "RoutesReady", "Unknown RolloutInProgress")
	if diff := cmp.Diff([]string{"hello-00001:82", "hello-00002:18"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic in between (-want +got):\n%s", diff)
	}
	for range 5 {
		w.now = w.now.Add(9 * time.Second)
		w.settle()
	}
	w.condition("hello", ready, isTrue)
	if diff := cmp.Diff([]string{"hello-00002:100"}, w.traffic("hello")); diff != "" {
		t.Errorf("traffic at the end (-want +got):\n%s", diff)
	}
	if w.state("hello-00001") != "reserve" {
		t.Errorf("routing state of the old revision is %s, want reserve", w.state("hello-00001"))
	}
}
