package serving_test

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/configuration"
	"github.com/weft-dev/weft/serving/labeler"
	"github.com/weft-dev/weft/serving/names"
	"github.com/weft-dev/weft/serving/revision"
	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/service"
	"github.com/weft-dev/weft/serving/servingtest"
)

// world runs all reconcilers over one cluster in memory. The test plays the Deployment controller, the autoscaler, the
// kubelet and the mesh.
type world struct {
	*servingtest.Cluster
	t        *testing.T
	snapshot *config.Snapshot
	mesh     *mesh
	now      time.Time
	// reconcilers by the list of what they reconcile.
	reconcilers []struct {
		list client.ObjectList
		reconcile.Reconciler
	}
}

// mesh programs everything at once, unless it is told why not.
type mesh struct{ why string }

func (m *mesh) RouteProgrammed(*servingv1.Route) (bool, string) { return m.why == "", m.why }
func (m *mesh) Changes() <-chan event.GenericEvent              { return nil }

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{
		Cluster: servingtest.New(t, []servingtest.Indexes{
			configuration.AddIndexes, revision.AddIndexes, route.AddIndexes, labeler.AddIndexes,
		}, objects...),
		t: t, snapshot: config.Default(config.Domains{Default: "localhost"}), mesh: &mesh{},
	}
	w.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := func() time.Time { return w.now }
	load := func() *config.Snapshot { return w.snapshot }
	settings := func() route.Settings { return route.Settings{Config: w.snapshot, Port: 8080} }
	w.add(&servingv1.ServiceList{}, service.New(w.Store))
	w.add(&servingv1.ConfigurationList{}, configuration.New(w.Store, now))
	w.add(&servingv1.RevisionList{}, revision.New(revision.Options{Store: w.Store, Config: load, Now: now}))
	w.add(&servingv1.RouteList{}, route.New(route.Options{Store: w.Store, Settings: settings, Mesh: w.mesh, Now: now}))
	w.add(&servingv1.RouteList{}, labeler.New(w.Store, now))
	return w
}

func (w *world) add(list client.ObjectList, r reconcile.Reconciler) {
	w.reconcilers = append(w.reconcilers, struct {
		list client.ObjectList
		reconcile.Reconciler
	}{list, r})
}

// settle reconciles everything until nothing is written any more. A world that never settles writes what did not change.
func (w *world) settle() {
	w.t.Helper()
	const rounds = 20
	for range rounds {
		before := w.Writes()
		for _, r := range w.reconcilers {
			w.pass(r.list, r.Reconciler)
		}
		if w.Writes() == before {
			return
		}
	}
	w.t.Fatalf("the reconcilers still write after %d rounds", rounds)
}

func (w *world) pass(list client.ObjectList, r reconcile.Reconciler) {
	w.t.Helper()
	list = list.DeepCopyObject().(client.ObjectList)
	if err := w.Store.List(w.t.Context(), list, client.InNamespace(servingtest.Namespace)); err != nil {
		w.t.Fatal(err)
	}
	for _, name := range objectNames(list) {
		key := client.ObjectKey{Namespace: servingtest.Namespace, Name: name}
		// An error is what the conditions report and the queue retries; the test looks at the conditions.
		if _, err := r.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
			w.t.Logf("%T %s: %v", r, name, err)
		}
	}
}

func objectNames(list client.ObjectList) (out []string) {
	switch l := list.(type) {
	case *servingv1.ServiceList:
		for i := range l.Items {
			out = append(out, l.Items[i].Name)
		}
	case *servingv1.ConfigurationList:
		for i := range l.Items {
			out = append(out, l.Items[i].Name)
		}
	case *servingv1.RevisionList:
		for i := range l.Items {
			out = append(out, l.Items[i].Name)
		}
	case *servingv1.RouteList:
		for i := range l.Items {
			out = append(out, l.Items[i].Name)
		}
	}
	return out
}

// apply creates a Service as admission would store it.
func (w *world) apply(name string, change func(*servingv1.Service)) {
	w.t.Helper()
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: name}}
	s.Spec.Template.Spec.Containers = []corev1.Container{{Image: "example.com/hello"}}
	if change != nil {
		change(s)
	}
	s.SetDefaults(w.snapshot.ToContext(w.t.Context()))
	if err := w.Store.Create(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	w.settle()
}

// update changes a Service.
func (w *world) update(name string, change func(*servingv1.Service)) {
	w.t.Helper()
	servingtest.Change(w.t, w.Cluster, name, func(s *servingv1.Service) {
		change(s)
		s.SetDefaults(w.snapshot.ToContext(w.t.Context()))
	})
	w.settle()
}

// start lets the instances of a revision become ready.
func (w *world) start(name string) {
	w.t.Helper()
	servingtest.Report(w.t, w.Cluster, names.Deployment(name), func(d *appsv1.Deployment) {
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}}
		d.Status.Replicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = 1, 1, 1
	})
	w.scale(name, 1)
	w.settle()
}

// scale reports a number of ready instances as the autoscaler does.
func (w *world) scale(name string, n int32) {
	w.t.Helper()
	servingtest.Report(w.t, w.Cluster, name, func(pa *autoscalingv1alpha1.PodAutoscaler) {
		pa.Status.InitializeConditions()
		pa.Status.MarkSKSReady()
		pa.Status.MarkScaleTargetInitialized()
		pa.Status.MarkActive()
		if n == 0 {
			pa.Status.MarkInactive("NoTraffic", "The target is not receiving traffic.")
		}
		pa.Status.ActualScale, pa.Status.DesiredScale = &n, &n
	})
}

// pod gives a revision one pod with one container in a state.
func (w *world) pod(name string, status corev1.ContainerStatus) {
	w.t.Helper()
	d := servingtest.Get[appsv1.Deployment](w.t, w.Cluster, names.Deployment(name))
	status.Name, status.Image = "user-container", d.Spec.Template.Spec.Containers[0].Image
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: name + "-pod", Labels: d.Spec.Template.Labels},
		Spec:       d.Spec.Template.Spec,
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}},
	}
	if err := w.Store.Create(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
	w.settle()
}

// service returns a Service and checks one of its conditions, given as "<status> <reason>".
func (w *world) condition(name string, kind string, want string) *servingv1.Service {
	w.t.Helper()
	s := servingtest.Get[servingv1.Service](w.t, w.Cluster, name)
	for _, c := range s.Status.Conditions {
		if string(c.Type) != kind {
			continue
		}
		if got := fmt.Sprintf("%s %s", c.Status, c.Reason); got != want {
			w.t.Errorf("condition %s of Service %s is %q (%s), want %q", kind, name, got, c.Message, want)
		}
		return s
	}
	w.t.Errorf("Service %s has no condition %s", name, kind)
	return s
}

// traffic returns the traffic of a Service as "<revision>:<percent>[:<tag>]".
func (w *world) traffic(name string) []string {
	w.t.Helper()
	s := servingtest.Get[servingv1.Service](w.t, w.Cluster, name)
	var out []string
	for _, target := range s.Status.Traffic {
		entry := fmt.Sprintf("%s:%d", target.RevisionName, *target.Percent)
		if target.Tag != "" {
			entry += ":" + target.Tag
		}
		out = append(out, entry)
	}
	return out
}

// state returns the routing state of a revision.
func (w *world) state(name string) string {
	w.t.Helper()
	return servingtest.Get[servingv1.Revision](w.t, w.Cluster, name).Labels[serving.RoutingStateLabelKey]
}

// forget reconciles the labels of a route that is gone.
func (w *world) forget(name string) {
	w.t.Helper()
	key := client.ObjectKey{Namespace: servingtest.Namespace, Name: name}
	r := labeler.New(w.Store, func() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) })
	if _, err := r.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
		w.t.Fatal(err)
	}
	w.settle()
}
