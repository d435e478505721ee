package hpa

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
)

// decided tells whether Kubernetes' controller has looked at h at all.
func decided(h *autoscalingv2.HorizontalPodAutoscaler) bool { return h.Status.DesiredReplicas > 0 }

// desired is the scale that is aimed at.
func desired(h *autoscalingv2.HorizontalPodAutoscaler, seen Seen) int32 {
	if decided(h) {
		return h.Status.DesiredReplicas
	}
	return max(seen.Replicas, least(seen.Settings))
}

// render reports the scale in the words of the other class: the revision becomes ready when its initial scale is reached.
func render(pa *autoscalingv1alpha1.PodAutoscaler, seen Seen, scale int32) {
	ready := seen.Ready
	pa.Status.DesiredScale, pa.Status.ActualScale = &scale, &ready
	if ready >= max(seen.Settings.MinScale, seen.Settings.InitialScale) {
		pa.Status.MarkScaleTargetInitialized()
	}
	if ready >= least(seen.Settings) && pa.Status.IsScaleTargetInitialized() {
		pa.Status.MarkActive()
		return
	}
	pa.Status.MarkActivating("Queued", "Requests to the target are being buffered as resources are provisioned.")
}

func condition(
	h *autoscalingv2.HorizontalPodAutoscaler, name autoscalingv2.HorizontalPodAutoscalerConditionType,
) *autoscalingv2.HorizontalPodAutoscalerCondition {
	for i := range h.Status.Conditions {
		if c := &h.Status.Conditions[i]; c.Type == name {
			return c
		}
	}
	return nil
}

// because says why h wants the scale that it wants: by the bound that it has met, and by what it has measured.
func because(h *autoscalingv2.HorizontalPodAutoscaler) string {
	var reasons []string
	if c := condition(h, autoscalingv2.ScalingLimited); c != nil && c.Status == corev1.ConditionTrue {
		switch c.Reason {
		case "TooFewReplicas":
			reasons = append(reasons, fmt.Sprintf("the least is %d", *h.Spec.MinReplicas))
		case "TooManyReplicas":
			reasons = append(reasons, fmt.Sprintf("max-scale is %d", h.Spec.MaxReplicas))
		case "ScaleUpLimit", "ScaleDownLimit":
			reasons = append(reasons, "a step may not be greater")
		}
	}
	for i := range h.Status.CurrentMetrics {
		if text := measured(h, &h.Status.CurrentMetrics[i]); text != "" {
			reasons = append(reasons, text)
		}
	}
	if len(reasons) == 0 {
		return "as the HorizontalPodAutoscaler says"
	}
	return strings.Join(reasons, ", and ")
}

// measured compares one metric with its target.
func measured(h *autoscalingv2.HorizontalPodAutoscaler, m *autoscalingv2.MetricStatus) string {
	for _, spec := range h.Spec.Metrics {
		switch {
		case spec.Type != m.Type:
		case m.Resource != nil && spec.Resource != nil && m.Resource.Name == spec.Resource.Name:
			return compare(string(m.Resource.Name), m.Resource.Current, spec.Resource.Target)
		case m.Pods != nil && spec.Pods != nil && m.Pods.Metric.Name == spec.Pods.Metric.Name:
			return compare(m.Pods.Metric.Name, m.Pods.Current, spec.Pods.Target)
		}
	}
	return ""
}

func compare(name string, now autoscalingv2.MetricValueStatus, target autoscalingv2.MetricTarget) string {
	switch {
	case now.AverageUtilization != nil && target.AverageUtilization != nil:
		return fmt.Sprintf("%s is at %d %% of what the instances request, %d %% is the target",
			name, *now.AverageUtilization, *target.AverageUtilization)
	case now.AverageValue != nil && target.AverageValue != nil:
		return fmt.Sprintf("%s is %s per instance on average, %s is the target", name, amount(*now.AverageValue), amount(*target.AverageValue))
	default:
		return ""
	}
}

// amount writes bytes in mebibytes, which users write targets in.
func amount(q resource.Quantity) string {
	const mebi = 1 << 20
	if q.Format == resource.BinarySI && q.Value() >= mebi {
		return fmt.Sprintf("%dMi", q.Value()/mebi)
	}
	return q.String()
}
