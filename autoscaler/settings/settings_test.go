package settings

import (
	"math"
	"testing"
	"time"

	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"

	"github.com/weft-dev/weft/serving/config"
)

const deadline = 10 * time.Minute

// of makes the settings of a PodAutoscaler with annotations, over a config map.
func of(t *testing.T, spec autoscalingv1alpha1.PodAutoscalerSpec, annotations, data map[string]string) Settings {
	t.Helper()
	s, err := config.Parse(map[string]map[string]string{config.AutoscalerName: data}, config.Domains{})
	if err != nil {
		t.Fatal(err)
	}
	pa := &autoscalingv1alpha1.PodAutoscaler{Spec: spec}
	pa.Annotations = annotations
	return Of(pa, s.Autoscaler, deadline)
}

func TestTarget(t *testing.T) {
	t.Parallel()
	const as = "autoscaling.knative.dev/"
	for _, tt := range []struct {
		name          string
		concurrency   int64
		annotations   map[string]string
		data          map[string]string
		target, total float64
	}{
		{name: "defaults", target: 70, total: 100},
		{name: "container concurrency", concurrency: 10, target: 7, total: 10},
		{name: "config maps", data: map[string]string{"container-concurrency-target-default": "50", "container-concurrency-target-percentage": "80"}, target: 40, total: 50},
		{name: "annotation", annotations: map[string]string{as + "target": "20"}, target: 14, total: 20},
		{name: "annotation below the container's", concurrency: 10, annotations: map[string]string{as + "target": "5"}, target: 3.5, total: 5},
		{name: "annotation above the container's", concurrency: 10, annotations: map[string]string{as + "target": "50"}, target: 7, total: 10},
		{name: "utilization", concurrency: 10, annotations: map[string]string{as + "target-utilization-percentage": "100"}, target: 10, total: 10},
		{name: "utilization in the other spelling", concurrency: 10, annotations: map[string]string{as + "targetUtilizationPercentage": "50"}, target: 5, total: 10},
		{name: "never below the least", concurrency: 1, annotations: map[string]string{as + "target": "0.01", as + "target-utilization-percentage": "1"}, target: 0.01, total: 0.01},
		{name: "requests per second", annotations: map[string]string{as + "metric": "rps"}, target: 140, total: 200},
		{
			name: "requests per second do not follow the utilization of concurrency", annotations: map[string]string{as + "metric": "rps"},
			data: map[string]string{"container-concurrency-target-percentage": "50", "requests-per-second-target-default": "100"}, target: 70, total: 100,
		},
		{name: "requests per second above container concurrency", concurrency: 1, annotations: map[string]string{as + "metric": "rps", as + "target": "50"}, target: 35, total: 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := of(t, autoscalingv1alpha1.PodAutoscalerSpec{ContainerConcurrency: tt.concurrency}, tt.annotations, tt.data)
			if math.Abs(s.Target-tt.target) > 1e-9 || math.Abs(s.Total-tt.total) > 1e-9 {
				t.Errorf("got %v of %v, want %v of %v", s.Target, s.Total, tt.target, tt.total)
			}
		})
	}
}

func TestAnnotationsWinOverConfig(t *testing.T) {
	t.Parallel()
	const as = "autoscaling.knative.dev/"
	for _, tt := range []struct {
		name        string
		key, alt    string
		value       string
		configKey   string
		configValue string
		read        func(Settings) any
		// byDefault, byConfig and byAnnotation are what the three sources make.
		byDefault, byConfig, byAnnotation any
	}{
		{name: "min-scale", key: "min-scale", alt: "minScale", value: "3", configKey: "min-scale", configValue: "2", read: func(s Settings) any { return s.MinScale }, byDefault: int32(0), byConfig: int32(2), byAnnotation: int32(3)},
		{name: "max-scale", key: "max-scale", alt: "maxScale", value: "3", configKey: "max-scale", configValue: "7", read: func(s Settings) any { return s.MaxScale }, byDefault: int32(0), byConfig: int32(7), byAnnotation: int32(3)},
		{name: "initial-scale", key: "initial-scale", alt: "initialScale", value: "3", configKey: "initial-scale", configValue: "2", read: func(s Settings) any { return s.InitialScale }, byDefault: int32(1), byConfig: int32(2), byAnnotation: int32(3)},
		{name: "window", key: "window", alt: "window", value: "40s", configKey: "stable-window", configValue: "30s", read: func(s Settings) any { return s.StableWindow }, byDefault: time.Minute, byConfig: 30 * time.Second, byAnnotation: 40 * time.Second},
		{name: "panic window", key: "panic-window-percentage", alt: "panicWindowPercentage", value: "50", configKey: "panic-window-percentage", configValue: "20", read: func(s Settings) any { return s.PanicWindow }, byDefault: 6 * time.Second, byConfig: 12 * time.Second, byAnnotation: 30 * time.Second},
		{name: "panic threshold", key: "panic-threshold-percentage", alt: "panicThresholdPercentage", value: "400", configKey: "panic-threshold-percentage", configValue: "300", read: func(s Settings) any { return s.PanicThreshold }, byDefault: 2., byConfig: 3., byAnnotation: 4.},
		{name: "delay", key: "scale-down-delay", alt: "scaleDownDelay", value: "9s", configKey: "scale-down-delay", configValue: "5s", read: func(s Settings) any { return s.ScaleDownDelay }, byDefault: time.Duration(0), byConfig: 5 * time.Second, byAnnotation: 9 * time.Second},
		{name: "retention", key: "scale-to-zero-pod-retention-period", alt: "scaleToZeroPodRetentionPeriod", value: "9s", configKey: "scale-to-zero-pod-retention-period", configValue: "5s", read: func(s Settings) any { return s.Retention }, byDefault: time.Duration(0), byConfig: 5 * time.Second, byAnnotation: 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := map[string]string{tt.configKey: tt.configValue}
			spec := autoscalingv1alpha1.PodAutoscalerSpec{}
			if got := tt.read(of(t, spec, nil, nil)); got != tt.byDefault {
				t.Errorf("by default %v, want %v", got, tt.byDefault)
			}
			if got := tt.read(of(t, spec, nil, data)); got != tt.byConfig {
				t.Errorf("by config map %v, want %v", got, tt.byConfig)
			}
			for _, key := range []string{tt.key, tt.alt} {
				if got := tt.read(of(t, spec, map[string]string{as + key: tt.value}, data)); got != tt.byAnnotation {
					t.Errorf("by annotation %s %v, want %v", key, got, tt.byAnnotation)
				}
				// Admission refuses it; if it comes all the same, it is as if it was not there.
				if got := tt.read(of(t, spec, map[string]string{as + key: "x"}, data)); got != tt.byConfig {
					t.Errorf("by a broken annotation %s %v, want %v", key, got, tt.byConfig)
				}
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	annotations := map[string]string{"autoscaling.knative.dev/min-scale": "3", "autoscaling.knative.dev/max-scale": "5", "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "1m"}
	s := of(t, autoscalingv1alpha1.PodAutoscalerSpec{Reachability: autoscalingv1alpha1.ReachabilityUnreachable}, annotations, nil)
	if !s.Unreachable || s.MinScale != 0 || s.Retention != 0 || s.MaxScale != 5 {
		t.Errorf("got %+v, want neither min-scale nor retention", s)
	}
	for _, reachability := range []autoscalingv1alpha1.ReachabilityType{autoscalingv1alpha1.ReachabilityReachable, autoscalingv1alpha1.ReachabilityUnknown} {
		s := of(t, autoscalingv1alpha1.PodAutoscalerSpec{Reachability: reachability}, annotations, nil)
		if s.Unreachable || s.MinScale != 3 || s.Retention != time.Minute {
			t.Errorf("%q: got %+v", reachability, s)
		}
	}
}

// TestNotFinite is about numbers that are none: the published types accept them, as NaN is below no bound.
func TestNotFinite(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"target", "target-utilization-percentage", "panic-window-percentage", "panic-threshold-percentage"} {
		for _, value := range []string{"NaN", "Inf", "-Inf"} {
			for _, metric := range []string{autoscaling.Concurrency, autoscaling.RPS} {
				annotations := map[string]string{autoscaling.MetricAnnotationKey: metric}
				want := of(t, autoscalingv1alpha1.PodAutoscalerSpec{ContainerConcurrency: 10}, annotations, nil)
				annotations["autoscaling.knative.dev/"+key] = value
				if got := of(t, autoscalingv1alpha1.PodAutoscalerSpec{ContainerConcurrency: 10}, annotations, nil); got != want {
					t.Errorf("%s %s with metric %s: got %+v, want as without: %+v", key, value, metric, got, want)
				}
			}
		}
	}
}

func TestOthers(t *testing.T) {
	t.Parallel()
	const as = "autoscaling.knative.dev/"
	s := of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, map[string]string{
		as + "initial-scale": "0", as + "activation-scale": "4", as + "metric-aggregation-algorithm": "weighted-exponential", "serving.knative.dev/progress-deadline": "30s",
	}, nil)
	if s.InitialScale != 1 {
		t.Errorf("initial-scale 0 where the cluster forbids it: %d", s.InitialScale)
	}
	if s.ActivationScale != 4 || !s.Weighted || s.ProgressDeadline != 30*time.Second || s.Metric != autoscaling.Concurrency {
		t.Errorf("got %+v", s)
	}
	s = of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, map[string]string{as + "initial-scale": "0"}, map[string]string{"allow-zero-initial-scale": "true", "enable-scale-to-zero": "false"})
	if s.InitialScale != 0 || s.ScaleToZero || s.Weighted || s.ProgressDeadline != deadline {
		t.Errorf("got %+v", s)
	}
	s = of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, map[string]string{as + "metricAggregationAlgorithm": "weightedExponential"}, nil)
	if !s.Weighted {
		t.Error("the other spellings of the aggregation are not known")
	}
	s = of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, map[string]string{as + "metric-aggregation-algorithm": "linear"}, nil)
	if s.Weighted || s.MaxScaleUpRate != 1000 || s.MaxScaleDownRate != 2 {
		t.Errorf("got %+v", s)
	}
	s = of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, nil, map[string]string{"max-scale-up-rate": "3", "max-scale-down-rate": "4.5"})
	if s.MaxScaleUpRate != 3 || s.MaxScaleDownRate != 4.5 {
		t.Errorf("got rates %v and %v", s.MaxScaleUpRate, s.MaxScaleDownRate)
	}
}

// TestNothingElseCounts is about what is accepted and has no effect here: it sizes and times Knative's activator.
func TestNothingElseCounts(t *testing.T) {
	t.Parallel()
	plain := of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, nil, nil)
	for _, key := range []string{"target-burst-capacity", "targetBurstCapacity"} {
		for _, value := range []string{"-1", "0", "500"} {
			if got := of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, map[string]string{"autoscaling.knative.dev/" + key: value}, nil); got != plain {
				t.Errorf("%s %s: %+v", key, value, got)
			}
		}
	}
	data := map[string]string{"target-burst-capacity": "-1", "activator-capacity": "7", "scale-to-zero-grace-period": "5s", "max-scale-limit": "0"}
	if got := of(t, autoscalingv1alpha1.PodAutoscalerSpec{}, nil, data); got != plain {
		t.Errorf("config map: %+v", got)
	}
}

func TestMine(t *testing.T) {
	t.Parallel()
	for class, want := range map[string]bool{"": true, autoscaling.KPA: true, autoscaling.HPA: false, "keda.sh": false} {
		pa := &autoscalingv1alpha1.PodAutoscaler{}
		if class != "" {
			pa.Annotations = map[string]string{autoscaling.ClassAnnotationKey: class}
		}
		if got := Mine(pa); got != want {
			t.Errorf("class %q: %v, want %v", class, got, want)
		}
	}
}
