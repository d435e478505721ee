package scale

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/weft-dev/weft/autoscaler/hpa"
	"github.com/weft-dev/weft/autoscaler/kpa"
	"github.com/weft-dev/weft/mesh/telemetry"
	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/owned"
)

// cluster is a Reconciler over an API server in memory, whose Deployments are patched for real.
type cluster struct {
	t        *testing.T
	client   client.Client
	recorder *events.FakeRecorder
	*Reconciler
}

// Scale implements Patcher.
func (c *cluster) Scale(ctx context.Context, target Target, replicas int32) (string, error) {
	var deployment appsv1.Deployment
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: target.Namespace, Name: target.Name}, &deployment); err != nil {
		return "", err
	}
	deployment.Spec.Replicas = &replicas
	err := c.client.Update(ctx, &deployment)
	return deployment.ResourceVersion, err
}

func newCluster(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, autoscalingv1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	logger := slog.New(slog.DiscardHandler)
	c := &cluster{t: t, recorder: events.NewFakeRecorder(20)}
	c.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&autoscalingv1alpha1.PodAutoscaler{}, &corev1.Pod{}).Build()
	scaler := New(Options{
		Patcher: c, Observed: func(time.Time) time.Duration { return time.Hour }, Changed: (&Queue{}).Changed, Logger: logger,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- scaler.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	c.Reconciler = &Reconciler{
		client: c.client, scaler: scaler, config: config.NewStore(config.Options{Logger: logger}), recorder: c.recorder, logger: logger,
		hpa: hpa.New(owned.Store{Client: c.client, Live: c.client, Events: c.recorder}, time.Now),
	}
	return c
}

// reconcile reconciles once and returns the PodAutoscaler.
func (c *cluster) reconcile() (*autoscalingv1alpha1.PodAutoscaler, ctrl.Result) {
	c.t.Helper()
	result, err := c.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: hello})
	if err != nil {
		c.t.Fatal(err)
	}
	var pa autoscalingv1alpha1.PodAutoscaler
	if err := c.client.Get(c.t.Context(), hello, &pa); client.IgnoreNotFound(err) != nil {
		c.t.Fatal(err)
	}
	return &pa, result
}

// await polls until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func (c *cluster) replicas() int32 {
	c.t.Helper()
	var deployment appsv1.Deployment
	if err := c.client.Get(c.t.Context(), client.ObjectKey{Namespace: hello.Namespace, Name: hello.Name + "-deployment"}, &deployment); err != nil {
		c.t.Fatal(err)
	}
	return *deployment.Spec.Replicas
}

var revisionLabels = map[string]string{serving.RevisionLabelKey: hello.Name}

func podAutoscaler(annotations map[string]string) *autoscalingv1alpha1.PodAutoscaler {
	return &autoscalingv1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: hello.Namespace, Name: hello.Name, Labels: revisionLabels, Annotations: annotations, Generation: 3},
		Spec: autoscalingv1alpha1.PodAutoscalerSpec{
			ScaleTargetRef: corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: hello.Name + "-deployment"},
			Reachability:   autoscalingv1alpha1.ReachabilityReachable, ProtocolType: "http1",
		},
	}
}

func deployment(replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: hello.Namespace, Name: hello.Name + "-deployment", Labels: revisionLabels},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas},
	}
}

func pod(name string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: hello.Namespace, Name: name, Labels: revisionLabels},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

// condition is what a test looks at.
type condition struct{ Status, Reason string }

func conditions(pa *autoscalingv1alpha1.PodAutoscaler) map[string]condition {
	got := map[string]condition{}
	for _, c := range pa.Status.Conditions {
		got[string(c.Type)] = condition{string(c.Status), c.Reason}
	}
	return got
}

func TestStatus(t *testing.T) {
	t.Parallel()
	yes := condition{Status: "True"}
	queued, idle := condition{"Unknown", "Queued"}, condition{"False", "NoTraffic"}
	for _, tt := range []struct {
		name            string
		objects         []client.Object
		annotations     map[string]string
		want            map[string]condition
		desired, actual int32
	}{
		{
			name: "new, without Deployment", want: map[string]condition{"Active": queued, "Ready": queued, "SKSReady": yes, "ScaleTargetInitialized": {Status: "Unknown"}},
			desired: 1,
		},
		{
			name: "new, with an instance that is not ready", objects: []client.Object{deployment(1), pod("a", corev1.ConditionFalse)},
			want: map[string]condition{"Active": queued, "Ready": queued, "SKSReady": yes, "ScaleTargetInitialized": {Status: "Unknown"}}, desired: 1,
		},
		{
			name: "new, with a ready instance", objects: []client.Object{deployment(1), pod("a", corev1.ConditionTrue)},
			want: map[string]condition{"Active": yes, "Ready": yes, "SKSReady": yes, "ScaleTargetInitialized": yes}, desired: 1, actual: 1,
		},
		{
			name: "new, with some of min-scale", objects: []client.Object{deployment(2), pod("a", corev1.ConditionTrue)},
			annotations: map[string]string{autoscaling.MinScaleAnnotationKey: "2"},
			want:        map[string]condition{"Active": queued, "Ready": queued, "SKSReady": yes, "ScaleTargetInitialized": {Status: "Unknown"}}, desired: 2, actual: 1,
		},
		{
			name: "new, and nothing wanted", objects: []client.Object{deployment(0)},
			annotations: map[string]string{autoscaling.InitialScaleAnnotationKey: "0"},
			want:        map[string]condition{"Active": idle, "Ready": idle, "SKSReady": yes, "ScaleTargetInitialized": yes},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, append(tt.objects, podAutoscaler(tt.annotations))...)
			if err := c.config.Set(config.AutoscalerName, map[string]string{"allow-zero-initial-scale": "true"}); err != nil {
				t.Fatal(err)
			}
			pa, _ := c.reconcile()
			if diff := cmp.Diff(tt.want, conditions(pa)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if pa.Status.GetDesiredScale() != tt.desired || pa.Status.GetActualScale() != tt.actual {
				t.Errorf("scale %d of %d, want %d of %d", pa.Status.GetActualScale(), pa.Status.GetDesiredScale(), tt.actual, tt.desired)
			}
			if pa.Status.ObservedGeneration != 3 || pa.Status.ServiceName != hello.Name || pa.Status.MetricsServiceName != hello.Name+"-private" {
				t.Errorf("status %+v", pa.Status)
			}
			// A second look changes nothing.
			again, _ := c.reconcile()
			if again.ResourceVersion != pa.ResourceVersion {
				t.Error("the status was written again without a change")
			}
		})
	}
}

// TestWakeInTheAPI follows a wake through Deployment, status and Event.
func TestWakeInTheAPI(t *testing.T) {
	t.Parallel()
	pa := podAutoscaler(nil)
	begin(pa)
	render(pa, Status{Phase: kpa.Inactive, Initialized: true, Since: time.Now().Add(-time.Hour)})
	c := newCluster(t, pa, deployment(0))
	c.reconcile()
	c.scaler.Report(&telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{
		Namespace: hello.Namespace, Revision: hello.Name, Parked: 1, Wake: true,
	}}}, time.Now())
	await(t, "the patch", func() bool { return c.replicas() == 1 })

	// The status waits for the instance, which most often comes soon.
	await(t, "the answer", func() bool { return len(c.scaler.WakeLog()) == 1 })
	got, result := c.reconcile()
	if !got.Status.IsInactive() || result.RequeueAfter <= 0 || result.RequeueAfter > settle {
		t.Errorf("right after the wake: %v, %+v", conditions(got), result)
	}
	if want, event := "Normal ScaledUp Scaled from 0 to 1: 1 request is waiting and no instance runs", <-c.recorder.Events; event != want {
		t.Errorf("event %q, want %q", event, want)
	}
	if err := c.client.Create(t.Context(), pod("a", corev1.ConditionTrue)); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.reconcile(); !got.Status.IsActive() || got.Status.GetActualScale() != 1 {
		t.Errorf("with a ready instance: %v", conditions(got))
	}
}

func TestOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, podAutoscaler(map[string]string{
		autoscaling.ClassAnnotationKey: "autoscaler.example.com", autoscaling.MinScaleAnnotationKey: "5",
	}), deployment(1))
	c.scaler.Report(&telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{
		Namespace: hello.Namespace, Revision: hello.Name, Parked: 1, Wake: true,
	}}}, time.Now())
	if pa, _ := c.reconcile(); len(pa.Status.Conditions) > 0 || c.replicas() != 1 || c.horizontal() != nil {
		t.Errorf("status %v, replicas %d", pa.Status, c.replicas())
	}
	if len(c.scaler.revisions) != 0 || len(c.recorder.Events) != 0 {
		t.Errorf("%d revisions are followed, %d Events were left", len(c.scaler.revisions), len(c.recorder.Events))
	}
}

// horizontal is the revision's HorizontalPodAutoscaler, nil when there is none.
func (c *cluster) horizontal() *autoscalingv2.HorizontalPodAutoscaler {
	c.t.Helper()
	var h autoscalingv2.HorizontalPodAutoscaler
	err := c.client.Get(c.t.Context(), hello, &h)
	if client.IgnoreNotFound(err) != nil {
		c.t.Fatal(err)
	}
	if err != nil {
		return nil
	}
	return &h
}

// setClass changes the class of the revision's PodAutoscaler, as a change of the Revision does.
func (c *cluster) setClass(class string) {
	c.t.Helper()
	var pa autoscalingv1alpha1.PodAutoscaler
	if err := c.client.Get(c.t.Context(), hello, &pa); err != nil {
		c.t.Fatal(err)
	}
	pa.Annotations = map[string]string{autoscaling.ClassAnnotationKey: class}
	if err := c.client.Update(c.t.Context(), &pa); err != nil {
		c.t.Fatal(err)
	}
}

// TestClassIsSwitched follows a live revision from one class to the other and back.
func TestClassIsSwitched(t *testing.T) {
	t.Parallel()
	pa := podAutoscaler(nil)
	pa.UID = "pa"
	begin(pa)
	render(pa, Status{Phase: kpa.Inactive, Initialized: true, Since: time.Now().Add(-time.Hour)})
	c := newCluster(t, pa, deployment(0))
	c.reconcile()
	if n := len(c.scaler.revisions); n != 1 {
		t.Fatalf("%d revisions are followed, want 1", n)
	}

	c.setClass(autoscaling.HPA)
	c.reconcile()
	if h := c.horizontal(); h == nil || c.replicas() != 1 || len(c.scaler.revisions) != 0 {
		t.Fatalf("with class hpa: %v, %d replicas, %d followed", h, c.replicas(), len(c.scaler.revisions))
	}
	var got []string
	for len(c.recorder.Events) > 0 {
		got = append(got, <-c.recorder.Events)
	}
	if diff := cmp.Diff([]string{
		`Normal Created Created HorizontalPodAutoscaler "hello-00001"`,
		"Normal ScaledUp Scaled from 0 to 1: revisions of class hpa.autoscaling.knative.dev do not scale to zero",
	}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if err := c.client.Create(t.Context(), pod("a", corev1.ConditionTrue)); err != nil {
		t.Fatal(err)
	}
	now, _ := c.reconcile()
	if !now.Status.IsActive() || !now.IsReady() || now.Status.GetActualScale() != 1 || now.Status.GetDesiredScale() != 1 {
		t.Errorf("with an instance: %v, scale %d of %d", conditions(now), now.Status.GetActualScale(), now.Status.GetDesiredScale())
	}

	c.setClass(autoscaling.KPA)
	now, _ = c.reconcile()
	if h := c.horizontal(); h != nil || len(c.scaler.revisions) != 1 || !now.Status.IsActive() {
		t.Errorf("back: %v, %d followed, %v", h, len(c.scaler.revisions), conditions(now))
	}

	// Any other class ends it too.
	c.setClass(autoscaling.HPA)
	c.reconcile()
	c.setClass("autoscaler.example.com")
	if c.reconcile(); c.horizontal() != nil {
		t.Error("with a foreign class, the HorizontalPodAutoscaler is left")
	}
}

func TestHorizontalOfSomebodyElse(t *testing.T) {
	t.Parallel()
	pa := podAutoscaler(map[string]string{autoscaling.ClassAnnotationKey: autoscaling.HPA})
	pa.UID = "pa"
	c := newCluster(t, pa, deployment(1), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: hello.Namespace, Name: hello.Name}})
	if _, err := c.Reconcile(t.Context(), ctrl.Request{NamespacedName: hello}); err == nil {
		t.Error("no error, so that it would not be tried again")
	}
	if err := c.client.Get(t.Context(), hello, pa); err != nil {
		t.Fatal(err)
	}
	if got := conditions(pa)["Active"]; got != (condition{"False", "NotOwned"}) {
		t.Errorf("condition %v", got)
	}
	c.setClass(autoscaling.KPA)
	if c.reconcile(); c.horizontal() == nil {
		t.Error("what belongs to somebody else was deleted")
	}
}

func TestUnsupportedTarget(t *testing.T) {
	t.Parallel()
	pa := podAutoscaler(nil)
	pa.Spec.ScaleTargetRef.Kind = "StatefulSet"
	c := newCluster(t, pa)
	if got, _ := c.reconcile(); conditions(got)["Active"] != (condition{"False", "UnsupportedScaleTarget"}) {
		t.Errorf("conditions %v", conditions(got))
	}
}

func TestDeletion(t *testing.T) {
	t.Parallel()
	pa := podAutoscaler(nil)
	c := newCluster(t, pa, deployment(1))
	c.reconcile()
	if err := c.client.Delete(t.Context(), pa); err != nil {
		t.Fatal(err)
	}
	c.reconcile()
	if n := len(c.scaler.revisions); n != 0 {
		t.Errorf("%d revisions are left", n)
	}
}

func TestCanServe(t *testing.T) {
	t.Parallel()
	leaving := pod("a", corev1.ConditionTrue)
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"ready": {pod("a", corev1.ConditionTrue), true}, "not ready": {pod("a", corev1.ConditionFalse), false},
		"leaving": {leaving, false}, "new": {&corev1.Pod{}, false},
	} {
		if got := canServe(tt.pod); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
