package scale

import (
	"time"

	"knative.dev/pkg/apis"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"

	"github.com/weft-dev/weft/autoscaler/kpa"
)

// ReasonAnnotation of a PodAutoscaler's status says why the scale was changed last. Events say it too, but are gone after an hour.
const ReasonAnnotation = "weft.dev/scale-reason"

// begin prepares a status for being rendered. ServerlessServices do not exist here: the proxy reaches the instances by their pods,
// so that part is always ready, and the service names are those that users know.
func begin(pa *autoscalingv1alpha1.PodAutoscaler) {
	pa.Status.InitializeConditions()
	pa.Status.ObservedGeneration = pa.Generation
	pa.Status.ServiceName, pa.Status.MetricsServiceName = pa.Name, pa.Name+"-private"
	pa.Status.MarkSKSReady()
}

// render writes what the Scaler reports, in the words of upstream.
func render(pa *autoscalingv1alpha1.PodAutoscaler, s Status) {
	ready := s.Ready
	pa.Status.ActualScale = &ready
	// A number that is not known yet does not replace one that was.
	if want := s.Want; want != kpa.Unknown || pa.Status.DesiredScale == nil {
		pa.Status.DesiredScale = &want
	}
	if s.Reason != "" {
		if pa.Status.Annotations == nil {
			pa.Status.Annotations = map[string]string{}
		}
		pa.Status.Annotations[ReasonAnnotation] = s.Reason
	}
	if s.Initialized {
		pa.Status.MarkScaleTargetInitialized()
	}
	switch {
	case s.Phase == kpa.Active:
		pa.Status.MarkActive()
	case s.Phase == kpa.Activating:
		pa.Status.MarkActivating("Queued", "Requests to the target are being buffered as resources are provisioned.")
	case s.TimedOut:
		pa.Status.MarkInactive("TimedOut", "The target could not be activated.")
	default:
		pa.Status.MarkInactive("NoTraffic", "The target is not receiving traffic.")
	}
	at := apis.VolatileTime{}
	at.Inner.Time = s.Since
	for i := range pa.Status.Conditions {
		c := &pa.Status.Conditions[i]
		// The Scaler knows since when, also when the status is written late; and reads it again after a restart.
		if c.Type == autoscalingv1alpha1.PodAutoscalerConditionActive && c.LastTransitionTime.Inner.Unix() != s.Since.Unix() {
			c.LastTransitionTime = at
		}
	}
}

// remembered is the phase that the status tells, since when, and whether the initial scale was reached.
func remembered(pa *autoscalingv1alpha1.PodAutoscaler, now time.Time) (kpa.Phase, time.Time, bool) {
	initialized := pa.Status.IsScaleTargetInitialized()
	condition := pa.Status.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive)
	if condition == nil {
		return kpa.Activating, now, initialized
	}
	phase := kpa.Activating
	switch {
	case condition.IsTrue():
		phase = kpa.Active
	case condition.IsFalse():
		phase = kpa.Inactive
	}
	return phase, condition.LastTransitionTime.Inner.Time, initialized
}
