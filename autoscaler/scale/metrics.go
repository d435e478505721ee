package scale

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-dev/weft/autoscaler/kpa"
)

// Metrics are what a Scaler tells Prometheus. The numbers of revisions are read when they are asked for, so that a revision costs
// nothing between two scrapes.
type Metrics struct {
	scaler                              *Scaler
	desired, ready, active, wakes, fail *prometheus.Desc
	wakeSeconds                         prometheus.Histogram
}

var _ prometheus.Collector = (*Metrics)(nil)

// NewMetrics returns the metrics of scaler, to be registered by the caller. It is called once per Scaler, before Run.
func NewMetrics(scaler *Scaler) *Metrics {
	revision := []string{"namespace", "revision"}
	m := &Metrics{
		scaler:  scaler,
		desired: prometheus.NewDesc("weft_autoscaler_desired_instances", "Instances that a revision should have.", revision, nil),
		ready:   prometheus.NewDesc("weft_autoscaler_ready_instances", "Instances of a revision that can serve.", revision, nil),
		active:  prometheus.NewDesc("weft_autoscaler_active", "1 while a revision has the instances that it needs, else 0.", revision, nil),
		wakes:   prometheus.NewDesc("weft_autoscaler_wakes_total", "Starts from zero that a waiting request has caused.", nil, nil),
		fail:    prometheus.NewDesc("weft_autoscaler_patch_failures_total", "Patches of a scale that the API server did not make.", nil, nil),
		wakeSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "weft_autoscaler_wake_seconds",
			Help:    "Time from a proxy's report of a waiting request to the patched scale.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
	}
	scaler.wakeSeconds = m.wakeSeconds
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.desired, m.ready, m.active, m.wakes, m.fail} {
		descriptions <- d
	}
	m.wakeSeconds.Describe(descriptions)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, r *revision) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, r.key.Namespace, r.key.Name)
	}
	for _, r := range m.scaler.all() {
		r.mu.Lock()
		status, known := r.status(), r.known && !r.gone
		r.mu.Unlock()
		if !known {
			continue
		}
		active := 0.0
		if status.Phase == kpa.Active {
			active = 1
		}
		gauge(m.desired, float64(max(status.Want, 0)), r)
		gauge(m.ready, float64(status.Ready), r)
		gauge(m.active, active, r)
	}
	metrics <- prometheus.MustNewConstMetric(m.wakes, prometheus.CounterValue, float64(m.scaler.woken.Load()))
	metrics <- prometheus.MustNewConstMetric(m.fail, prometheus.CounterValue, float64(m.scaler.failures.Load()))
	m.wakeSeconds.Collect(metrics)
}
