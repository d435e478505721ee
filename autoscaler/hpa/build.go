package hpa

import (
	"math"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"

	"github.com/weft-dev/weft/autoscaler/settings"
)

// defaultUtilization is what Kubernetes scales by when no target is named: percent of the requested processor time.
const defaultUtilization = 80

// Build returns the HorizontalPodAutoscaler of pa, as Knative makes it. Everything is spelled out for which the API server has a default,
// so that same can compare.
func Build(pa *autoscalingv1alpha1.PodAutoscaler, c settings.Settings) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pa.Namespace, Name: pa.Name, Labels: pa.Labels, Annotations: pa.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pa, pa.GetGroupVersionKind())},
		},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
				APIVersion: pa.Spec.ScaleTargetRef.APIVersion, Kind: pa.Spec.ScaleTargetRef.Kind, Name: pa.Spec.ScaleTargetRef.Name,
			},
			MinReplicas: new(least(c)), MaxReplicas: c.MaxScale,
			Metrics: []autoscalingv2.MetricSpec{metric(pa)},
		},
	}
	if h.Spec.MaxReplicas == 0 {
		h.Spec.MaxReplicas = math.MaxInt32
	}
	if window, ok := pa.Window(); ok {
		seconds := int32(window.Seconds())
		h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{
			ScaleUp:   &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &seconds},
			ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &seconds},
		}
	}
	return h
}

// least is how many instances there are at any time: HorizontalPodAutoscalers do not scale to zero.
func least(c settings.Settings) int32 { return max(c.MinScale, 1) }

// metric is what pa scales by. Without a target it is Kubernetes' default, whatever metric is named.
func metric(pa *autoscalingv1alpha1.PodAutoscaler) autoscalingv2.MetricSpec {
	// A target has no upper bound in the annotation. Below most, it fits whatever it is converted to.
	const mebi, milli, most = 1 << 20, 1000, math.MaxInt32
	target, ok := settings.Target(pa)
	if !ok {
		return ofResource(corev1.ResourceCPU, autoscalingv2.MetricTarget{
			Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(defaultUtilization)),
		})
	}
	target = min(target, most)
	switch name := pa.Metric(); name {
	case autoscaling.CPU:
		return ofResource(corev1.ResourceCPU, autoscalingv2.MetricTarget{
			Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(math.Ceil(target))),
		})
	case autoscaling.Memory:
		return ofResource(corev1.ResourceMemory, autoscalingv2.MetricTarget{
			Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(int64(target*mebi), resource.BinarySI),
		})
	default:
		return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name},
			Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewMilliQuantity(int64(target*milli), resource.DecimalSI),
			},
		}}
	}
}

func ofResource(name corev1.ResourceName, target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: name, Target: target},
	}
}

// same tells whether have, as stored, is what is wanted. The API server completes the rules of a behavior, so that only what want
// names is compared; a behavior as a whole is named or not.
func same(want, have *autoscalingv2.HorizontalPodAutoscalerSpec) bool {
	return (want.Behavior == nil) == (have.Behavior == nil) && len(want.Metrics) == len(have.Metrics) &&
		equality.Semantic.DeepDerivative(want, have)
}
