package hpa

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/weft-dev/weft/serving/owned"
)

// cluster is a Reconciler over an API server in memory, in which the test plays Kubernetes' controller.
type cluster struct {
	t        *testing.T
	client   client.Client
	recorder *events.FakeRecorder
	now      time.Time
	*Reconciler
}

func newCluster(t *testing.T, calls interceptor.Funcs, objects ...client.Object) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, autoscalingv2.AddToScheme, autoscalingv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{t: t, recorder: events.NewFakeRecorder(20), now: time.Now()}
	c.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(calls).
		WithStatusSubresource(&autoscalingv2.HorizontalPodAutoscaler{}).Build()
	c.Reconciler = New(owned.Store{Client: c.client, Live: c.client, Events: c.recorder}, func() time.Time { return c.now })
	return c
}

// reconcile reconciles once with so many instances and returns what is left to do and the new Events.
func (c *cluster) reconcile(pa *autoscalingv1alpha1.PodAutoscaler, replicas, ready int32) (Outcome, []string) {
	c.t.Helper()
	outcome, err := c.Reconcile(c.t.Context(), pa, Seen{Replicas: replicas, Ready: ready, Settings: settingsOf(c.t, pa, nil)})
	if err != nil {
		c.t.Fatal(err)
	}
	return outcome, c.events()
}

func (c *cluster) events() []string {
	var out []string
	for len(c.recorder.Events) > 0 {
		out = append(out, <-c.recorder.Events)
	}
	return out
}

// decide writes what Kubernetes' controller would.
func (c *cluster) decide(change func(*autoscalingv2.HorizontalPodAutoscalerStatus)) {
	c.t.Helper()
	h := c.get()
	change(&h.Status)
	if err := c.client.Status().Update(c.t.Context(), h); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) get() *autoscalingv2.HorizontalPodAutoscaler {
	c.t.Helper()
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := c.client.Get(c.t.Context(), client.ObjectKey{Namespace: "default", Name: "hello-00001"}, &h); err != nil {
		c.t.Fatal(err)
	}
	return &h
}

func (c *cluster) wantEvents(got []string, want ...string) {
	c.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Errorf("events (-want +got):\n%s", diff)
	}
}

func utilization(percent int32) []autoscalingv2.MetricStatus {
	return []autoscalingv2.MetricStatus{{Type: "Resource", Resource: &autoscalingv2.ResourceMetricStatus{
		Name: "cpu", Current: autoscalingv2.MetricValueStatus{AverageUtilization: &percent},
	}}}
}

// TestScale follows a revision from its first instance through load and back.
func TestScale(t *testing.T) {
	t.Parallel()
	c, pa := newCluster(t, interceptor.Funcs{}), podAutoscaler("target", "50", "max-scale", "3")
	_, got := c.reconcile(pa, 1, 0)
	c.wantEvents(got, `Normal Created Created HorizontalPodAutoscaler "hello-00001"`)
	if !pa.Status.IsActivating() || pa.Status.IsScaleTargetInitialized() || pa.Status.GetDesiredScale() != 1 {
		t.Errorf("without an instance: %+v", pa.Status)
	}
	_, got = c.reconcile(pa, 1, 1)
	c.wantEvents(got)
	if !pa.Status.IsActive() || !pa.Status.IsScaleTargetInitialized() || pa.Status.GetActualScale() != 1 {
		t.Errorf("with an instance: %+v", pa.Status)
	}

	for _, step := range []struct {
		desired, percent int32
		limited          string
		want             []string
	}{
		{desired: 1, percent: 20},
		{desired: 2, percent: 90, want: []string{"Normal ScaledUp Scaled from 1 to 2: cpu is at 90 % of what the instances request, 50 % is the target"}},
		{desired: 2, percent: 70},
		{desired: 3, percent: 300, limited: "TooManyReplicas", want: []string{
			"Normal ScaledUp Scaled from 2 to 3: max-scale is 3, and cpu is at 300 % of what the instances request, 50 % is the target",
		}},
		{desired: 1, percent: 1, limited: "TooFewReplicas", want: []string{
			"Normal ScaledDown Scaled from 3 to 1: the least is 1, and cpu is at 1 % of what the instances request, 50 % is the target",
		}},
	} {
		c.decide(func(s *autoscalingv2.HorizontalPodAutoscalerStatus) {
			s.DesiredReplicas, s.CurrentMetrics = step.desired, utilization(step.percent)
			s.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: corev1.ConditionTrue}}
			if step.limited != "" {
				s.Conditions = append(s.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
					Type: autoscalingv2.ScalingLimited, Status: corev1.ConditionTrue, Reason: step.limited,
				})
			}
		})
		outcome, got := c.reconcile(pa, step.desired, step.desired)
		c.wantEvents(got, step.want...)
		if pa.Status.GetDesiredScale() != step.desired || outcome != (Outcome{}) {
			t.Errorf("scale %d, outcome %+v; want %d", pa.Status.GetDesiredScale(), outcome, step.desired)
		}
		// The same again says nothing new.
		_, got = c.reconcile(pa, step.desired, step.desired)
		c.wantEvents(got)
	}
}

// TestRestart is about a Reconciler that has forgotten what it has told.
func TestRestart(t *testing.T) {
	t.Parallel()
	c, pa := newCluster(t, interceptor.Funcs{}), podAutoscaler()
	c.reconcile(pa, 1, 1)
	c.decide(func(s *autoscalingv2.HorizontalPodAutoscalerStatus) { s.DesiredReplicas = 2 })
	_, got := c.reconcile(pa, 2, 1)
	c.wantEvents(got, "Normal ScaledUp Scaled from 1 to 2: as the HorizontalPodAutoscaler says")
	c.Forget(client.ObjectKeyFromObject(pa))
	_, got = c.reconcile(pa, 2, 2)
	c.wantEvents(got)
}

func TestInitialScale(t *testing.T) {
	t.Parallel()
	c, pa := newCluster(t, interceptor.Funcs{}), podAutoscaler("initial-scale", "3", "min-scale", "2")
	for _, step := range []struct {
		ready               int32
		initialized, active bool
	}{{2, false, false}, {3, true, true}, {2, true, true}, {1, true, false}} {
		c.reconcile(pa, 3, step.ready)
		if pa.Status.IsScaleTargetInitialized() != step.initialized || pa.Status.IsActive() != step.active {
			t.Errorf("%d ready: initialized %v, active %v", step.ready, pa.Status.IsScaleTargetInitialized(), pa.Status.IsActive())
		}
	}
}

func TestNeverAtZero(t *testing.T) {
	t.Parallel()
	c, pa := newCluster(t, interceptor.Funcs{}), podAutoscaler("min-scale", "2")
	for _, tt := range []struct{ replicas, want int32 }{{0, 2}, {-1, 0}, {1, 0}} {
		if outcome, _ := c.reconcile(pa, tt.replicas, 0); outcome.Replicas != tt.want {
			t.Errorf("%d replicas: to be scaled to %d, want %d", tt.replicas, outcome.Replicas, tt.want)
		}
	}
}

// TestProblemsAreTold is about figures that are missing: at once that is usual, for long it is what a user has to mend.
func TestProblemsAreTold(t *testing.T) {
	t.Parallel()
	c, pa := newCluster(t, interceptor.Funcs{}), podAutoscaler()
	_, _ = c.reconcile(pa, 1, 1)
	since := c.now.Truncate(time.Second)
	const text = "the HPA was unable to compute the replica count: missing request for cpu in container user-container"
	c.decide(func(s *autoscalingv2.HorizontalPodAutoscalerStatus) {
		s.DesiredReplicas = 1
		s.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{
			Type: autoscalingv2.ScalingActive, Status: corev1.ConditionFalse, Reason: "FailedGetResourceMetric", Message: text,
			LastTransitionTime: metav1.NewTime(since),
		}}
	})
	c.now = since.Add(10 * time.Second)
	outcome, got := c.reconcile(pa, 1, 1)
	c.wantEvents(got)
	if outcome.After != 20*time.Second {
		t.Errorf("to be looked at after %v, want 20s", outcome.After)
	}
	c.now = since.Add(31 * time.Second)
	outcome, got = c.reconcile(pa, 1, 1)
	c.wantEvents(got, "Warning FailedGetResourceMetric The number of instances stays as it is: "+text)
	if outcome.After != 0 {
		t.Errorf("to be looked at after %v, want never", outcome.After)
	}
	_, got = c.reconcile(pa, 1, 1)
	c.wantEvents(got)
}

func TestChangesReachTheHorizontal(t *testing.T) {
	t.Parallel()
	c, pa := newCluster(t, interceptor.Funcs{}), podAutoscaler("target", "50")
	c.reconcile(pa, 1, 1)
	before := c.get().ResourceVersion
	c.reconcile(pa, 1, 1)
	if after := c.get().ResourceVersion; after != before {
		t.Error("it was written without a change")
	}
	pa.Annotations["autoscaling.knative.dev/min-scale"] = "2"
	c.reconcile(pa, 1, 1)
	if h := c.get(); *h.Spec.MinReplicas != 2 || h.Annotations["autoscaling.knative.dev/min-scale"] != "2" {
		t.Errorf("min %d, annotations %v", *h.Spec.MinReplicas, h.Annotations)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	refuse := interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return refused }}
	foreign := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello-00001"}}
	for _, tt := range []struct {
		name    string
		cluster *cluster
		reason  string
	}{
		{"cannot be created", newCluster(t, refuse), "FailedCreate"},
		{"belongs to somebody else", newCluster(t, interceptor.Funcs{}, foreign), "NotOwned"},
	} {
		pa := podAutoscaler()
		_, err := tt.cluster.Reconcile(t.Context(), pa, Seen{Replicas: 0, Settings: settingsOf(t, pa, nil)})
		if err == nil {
			t.Errorf("%s: no error", tt.name)
		}
		if c := pa.Status.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive); c.GetReason() != tt.reason || !c.IsFalse() {
			t.Errorf("%s: condition %+v, want reason %s", tt.name, c, tt.reason)
		}
	}
}

func TestMeasured(t *testing.T) {
	t.Parallel()
	quantity := func(s string) *resource.Quantity { return new(resource.MustParse(s)) }
	for _, tt := range []struct {
		name        string
		annotations []string
		status      autoscalingv2.MetricStatus
		want        string
	}{
		{
			"memory",
			[]string{"metric", "memory", "target", "100"},
			autoscalingv2.MetricStatus{Type: "Resource", Resource: &autoscalingv2.ResourceMetricStatus{
				Name: "memory", Current: autoscalingv2.MetricValueStatus{AverageValue: quantity("150Mi")},
			}},
			"memory is 150Mi per instance on average, 100Mi is the target",
		},
		{
			"custom",
			[]string{"metric", "jobs", "target", "4"},
			autoscalingv2.MetricStatus{Type: "Pods", Pods: &autoscalingv2.PodsMetricStatus{
				Metric: autoscalingv2.MetricIdentifier{Name: "jobs"}, Current: autoscalingv2.MetricValueStatus{AverageValue: quantity("7500m")},
			}},
			"jobs is 7500m per instance on average, 4 is the target",
		},
		{
			"another than the one asked for",
			[]string{"metric", "cpu", "target", "4"},
			autoscalingv2.MetricStatus{Type: "Resource", Resource: &autoscalingv2.ResourceMetricStatus{Name: "memory"}},
			"",
		},
	} {
		pa := podAutoscaler(tt.annotations...)
		if got := measured(Build(pa, settingsOf(t, pa, nil)), &tt.status); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
