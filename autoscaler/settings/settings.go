// Package settings works out how one revision scales: the annotations of its PodAutoscaler over the config map's defaults. The
// decision (autoscaler/kpa) and the scaler (autoscaler/scale) read the result. It computes only, and talks to nobody.
package settings

import (
	"math"
	"strconv"
	"time"

	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"

	"github.com/weft-dev/weft/serving/config"
)

// rpsUtilization is what instances are filled to when a revision scales by requests per second; upstream does not configure it.
const rpsUtilization = 0.7

// Settings of one revision. It is comparable, so that a change is found by ==.
type Settings struct {
	// Metric is autoscaling.Concurrency or autoscaling.RPS.
	Metric string
	// Target is the load that one instance should have, of Total that it can have.
	Target, Total float64
	// Weighted takes exponentially weighted averages in place of plain ones.
	Weighted bool
	// StableWindow and PanicWindow are what averages are taken over.
	StableWindow, PanicWindow time.Duration
	// PanicThreshold is the ratio of wanted to ready instances from which there is panic.
	PanicThreshold float64
	// MaxScaleUpRate and MaxScaleDownRate bound one step.
	MaxScaleUpRate, MaxScaleDownRate float64
	// MinScale and MaxScale bound the instances; a MaxScale of 0 is no bound. An unreachable revision has no MinScale.
	MinScale, MaxScale int32
	// InitialScale is how many instances must have been ready once.
	InitialScale int32
	// ActivationScale is how many instances a start from zero makes at least; below 2 it has no effect.
	ActivationScale int32
	// ScaleDownDelay is how long a lower need must last.
	ScaleDownDelay time.Duration
	// ScaleToZero permits no instance at all; Retention is how long the last one is kept after it is no longer needed.
	ScaleToZero bool
	Retention   time.Duration
	// ProgressDeadline is how long instances may take to become ready.
	ProgressDeadline time.Duration
	// Unreachable says that no Route uses the revision.
	Unreachable bool
}

// Of are the settings of pa. progressDeadline is the default of config-deployment.
func Of(pa *autoscalingv1alpha1.PodAutoscaler, c *config.Autoscaler, progressDeadline time.Duration) Settings {
	s := Settings{
		Metric: pa.Metric(), Unreachable: pa.Spec.Reachability == autoscalingv1alpha1.ReachabilityUnreachable,
		MaxScaleUpRate: c.MaxScaleUpRate, MaxScaleDownRate: c.MaxScaleDownRate, ScaleToZero: c.EnableScaleToZero,
	}
	if s.Metric != autoscaling.RPS {
		s.Metric = autoscaling.Concurrency
	}
	s.Target, s.Total = target(pa, c, s.Metric)
	s.setWindows(pa, c)
	s.setBounds(pa, c)
	s.ScaleDownDelay = or(c.ScaleDownDelay)(pa.ScaleDownDelay())
	s.ProgressDeadline = or(progressDeadline)(pa.ProgressDeadline())
	if !s.Unreachable {
		s.Retention = or(c.ScaleToZeroPodRetentionPeriod)(pa.ScaleToZeroPodRetention())
	}
	return s
}

// target resolves the load per instance: the container's own limit, or the default without one, or the annotation, which can only
// lower a limit; and of that the utilization.
func target(pa *autoscalingv1alpha1.PodAutoscaler, c *config.Autoscaler, metric string) (target, total float64) {
	utilization := c.TargetUtilization
	limit := float64(pa.Spec.ContainerConcurrency)
	switch {
	case metric == autoscaling.RPS:
		total, utilization = c.RPSTarget, rpsUtilization
	case limit > 0:
		total = limit
	default:
		total = c.ConcurrencyTarget
	}
	if annotated, ok := Target(pa); ok {
		total = annotated
		if metric == autoscaling.Concurrency && limit > 0 {
			total = min(annotated, limit)
		}
	}
	if annotated, ok := finite(pa.TargetUtilization()); ok {
		utilization = annotated
	}
	return max(autoscaling.TargetMin, total*utilization), total
}

// Target is the load per instance that pa is annotated with, if any.
func Target(pa *autoscalingv1alpha1.PodAutoscaler) (float64, bool) { return finite(pa.Target()) }

// finite makes an annotation that is NaN or infinite count as absent. The published types accept it: NaN is not below any bound.
func finite(value float64, ok bool) (float64, bool) {
	return value, ok && !math.IsNaN(value) && !math.IsInf(value, 0)
}

func (s *Settings) setWindows(pa *autoscalingv1alpha1.PodAutoscaler, c *config.Autoscaler) {
	s.StableWindow = or(c.StableWindow)(pa.Window())
	percentage := or(c.PanicWindowPercentage)(finite(pa.PanicWindowPercentage()))
	// Loads are known by the second.
	s.PanicWindow = max(time.Second, time.Duration(float64(s.StableWindow)*percentage/100))
	s.PanicThreshold = or(c.PanicThresholdPercentage)(finite(pa.PanicThresholdPercentage())) / 100
	_, algorithm, _ := autoscaling.MetricAggregationAlgorithmAnnotation.Get(pa.Annotations)
	s.Weighted = algorithm == autoscaling.MetricAggregationAlgorithmWeightedExponential ||
		algorithm == autoscaling.MetricAggregationAlgorithmWeightedExponentialAlt
}

func (s *Settings) setBounds(pa *autoscalingv1alpha1.PodAutoscaler, c *config.Autoscaler) {
	if !s.Unreachable {
		s.MinScale = or(c.MinScale)(count(autoscaling.MinScaleAnnotation.Get(pa.Annotations)))
	}
	s.MaxScale = or(c.MaxScale)(count(autoscaling.MaxScaleAnnotation.Get(pa.Annotations)))
	s.InitialScale = c.InitialScaleOf(pa.Annotations)
	s.ActivationScale = or(int32(0))(pa.ActivationScale())
}

func count(_, value string, ok bool) (int32, bool) {
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(value, 10, 32)
	return int32(n), err == nil
}

// or returns a function that takes an optional value, and otherwise this default.
func or[T any](byDefault T) func(T, bool) T {
	return func(value T, ok bool) T {
		if ok {
			return value
		}
		return byDefault
	}
}

// Mine tells whether pa is for Knative's own autoscaler; objects of another class belong to somebody else.
func Mine(pa *autoscalingv1alpha1.PodAutoscaler) bool { return pa.Class() == autoscaling.KPA }

// Revision is the name of the revision that pa scales.
func Revision(pa *autoscalingv1alpha1.PodAutoscaler) string {
	if name := pa.Labels[serving.RevisionLabelKey]; name != "" {
		return name
	}
	return pa.Name
}
