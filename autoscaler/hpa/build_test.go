package hpa

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"

	"github.com/weft-dev/weft/autoscaler/settings"
	"github.com/weft-dev/weft/serving/config"
)

// podAutoscaler is one of class hpa with these annotations besides, in pairs.
func podAutoscaler(annotations ...string) *autoscalingv1alpha1.PodAutoscaler {
	pa := &autoscalingv1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "hello-00001", UID: "pa", Labels: map[string]string{"app": "hello"},
			Annotations: map[string]string{autoscaling.ClassAnnotationKey: autoscaling.HPA},
		},
		Spec: autoscalingv1alpha1.PodAutoscalerSpec{
			ScaleTargetRef: corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "hello-00001-deployment"},
		},
	}
	for i := 0; i < len(annotations); i += 2 {
		pa.Annotations[autoscaling.GroupName+"/"+annotations[i]] = annotations[i+1]
	}
	return pa
}

// settingsOf reads the annotations over the defaults of the config map.
func settingsOf(t *testing.T, pa *autoscalingv1alpha1.PodAutoscaler, data map[string]string) settings.Settings {
	t.Helper()
	snapshot, err := config.Parse(map[string]map[string]string{config.AutoscalerName: data}, config.Domains{})
	if err != nil {
		t.Fatal(err)
	}
	return settings.Of(pa, snapshot.Autoscaler, time.Minute)
}

func TestBuild(t *testing.T) {
	t.Parallel()
	cpu := func(percent int32) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{
			Name: "cpu", Target: autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: &percent},
		}}
	}
	for _, tt := range []struct {
		name        string
		annotations []string
		config      map[string]string
		unreachable bool
		min, max    int32
		metric      autoscalingv2.MetricSpec
		window      int32
	}{
		{name: "nothing said", min: 1, max: math.MaxInt32, metric: cpu(80)},
		{name: "bounds", annotations: []string{"min-scale", "2", "max-scale", "5"}, min: 2, max: 5, metric: cpu(80)},
		{name: "bounds in the other spelling", annotations: []string{"minScale", "2", "maxScale", "5"}, min: 2, max: 5, metric: cpu(80)},
		{name: "bounds of the config map", config: map[string]string{"min-scale": "3", "max-scale": "4"}, min: 3, max: 4, metric: cpu(80)},
		{name: "a least of 0 becomes 1", annotations: []string{"min-scale", "0"}, min: 1, max: math.MaxInt32, metric: cpu(80)},
		{name: "unreachable", annotations: []string{"min-scale", "4"}, unreachable: true, min: 1, max: math.MaxInt32, metric: cpu(80)},
		{name: "processor", annotations: []string{"metric", "cpu", "target", "49.5"}, min: 1, max: math.MaxInt32, metric: cpu(50)},
		{name: "a target without a metric is of the processor", annotations: []string{"target", "60"}, min: 1, max: math.MaxInt32, metric: cpu(60)},
		{name: "a target beyond all bounds", annotations: []string{"metric", "cpu", "target", "1e300"}, min: 1, max: math.MaxInt32, metric: cpu(math.MaxInt32)},
		{name: "a target that is no number", annotations: []string{"metric", "memory", "target", "NaN"}, min: 1, max: math.MaxInt32, metric: cpu(80)},
		{
			name: "memory", annotations: []string{"metric", "memory", "target", "200"}, min: 1, max: math.MaxInt32,
			metric: autoscalingv2.MetricSpec{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{
				Name: "memory", Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: new(resource.MustParse("200Mi"))},
			}},
		},
		{
			name: "any other", annotations: []string{"metric", "queue-length", "target", "12.5"}, min: 1, max: math.MaxInt32,
			metric: autoscalingv2.MetricSpec{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "queue-length"},
				Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: new(resource.MustParse("12.5"))},
			}},
		},
		{name: "window", annotations: []string{"window", "90s"}, min: 1, max: math.MaxInt32, metric: cpu(80), window: 90},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pa := podAutoscaler(tt.annotations...)
			if tt.unreachable {
				pa.Spec.Reachability = autoscalingv1alpha1.ReachabilityUnreachable
			}
			want := &autoscalingv2.HorizontalPodAutoscaler{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "default", Name: "hello-00001", Labels: pa.Labels, Annotations: pa.Annotations,
					OwnerReferences: []metav1.OwnerReference{{
						APIVersion: "autoscaling.internal.knative.dev/v1alpha1", Kind: "PodAutoscaler", Name: "hello-00001", UID: "pa",
						Controller: new(true), BlockOwnerDeletion: new(true),
					}},
				},
				Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
					ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "hello-00001-deployment"},
					MinReplicas:    &tt.min, MaxReplicas: tt.max, Metrics: []autoscalingv2.MetricSpec{tt.metric},
				},
			}
			if tt.window > 0 {
				rules := &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &tt.window}
				want.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules, ScaleDown: rules}
			}
			if diff := cmp.Diff(want, Build(pa, settingsOf(t, pa, tt.config))); diff != "" {
				t.Errorf("HorizontalPodAutoscaler (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	build := func(annotations ...string) *autoscalingv2.HorizontalPodAutoscalerSpec {
		pa := podAutoscaler(annotations...)
		return &Build(pa, settingsOf(t, pa, nil)).Spec
	}
	stored := build("window", "60s", "target", "50")
	// What the API server adds.
	for _, rules := range []*autoscalingv2.HPAScalingRules{stored.Behavior.ScaleUp, stored.Behavior.ScaleDown} {
		rules.SelectPolicy = new(autoscalingv2.MaxChangePolicySelect)
		rules.Policies = []autoscalingv2.HPAScalingPolicy{{Type: "Percent", Value: 100, PeriodSeconds: 15}}
	}
	for _, tt := range []struct {
		name string
		with []string
		want bool
	}{
		{"unchanged", []string{"window", "60s", "target", "50"}, true},
		{"another window", []string{"window", "70s", "target", "50"}, false},
		{"no window", []string{"target", "50"}, false},
		{"another target", []string{"window", "60s", "target", "51"}, false},
		{"another metric", []string{"window", "60s", "target", "50", "metric", "memory"}, false},
		{"another bound", []string{"window", "60s", "target", "50", "max-scale", "3"}, false},
	} {
		if got := same(build(tt.with...), stored); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
