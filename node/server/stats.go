package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	summary "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Stats says what the node and its pods use. It may be called concurrently, and may take a second to measure.
type Stats interface {
	Summary(ctx context.Context) (*summary.Summary, error)
}

// summary serves /stats/summary.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	stats, err := s.o.Stats.Summary(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(stats)
}

// resourceMetrics serves /metrics/resource: the counters behind the summary, under the names that kubelets give them.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	stats, err := s.o.Stats.Summary(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(counters{stats})
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// counters are one summary as metrics.
type counters struct{ *summary.Summary }

// Describe describes nothing: what there is depends on the pods.
func (counters) Describe(chan<- *prometheus.Desc) {}

// Collect writes all counters with the time at which they were read.
func (c counters) Collect(out chan<- prometheus.Metric) {
	m := emitter{out: out}
	m.usage("node", nil, nil, c.Node.CPU, c.Node.Memory)
	for i := range c.Pods {
		p := &c.Pods[i]
		pod := []string{p.PodRef.Name, p.PodRef.Namespace}
		m.usage("pod", []string{"pod", "namespace"}, pod, p.CPU, p.Memory)
		for j := range p.Containers {
			container := &p.Containers[j]
			names, values := []string{"container", "pod", "namespace"}, append([]string{container.Name}, pod...)
			m.usage("container", names, values, container.CPU, container.Memory)
			desc := prometheus.NewDesc("container_start_time_seconds", "Start time of the container since unix epoch in seconds", names, nil)
			m.emit(desc, prometheus.GaugeValue, float64(container.StartTime.UnixNano())/1e9, time.Time{}, values)
		}
	}
	desc := prometheus.NewDesc("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, nil)
	m.emit(desc, prometheus.GaugeValue, 0, time.Time{}, nil)
}

type emitter struct{ out chan<- prometheus.Metric }

// usage emits processor time and working set of one thing.
func (e emitter) usage(kind string, names, values []string, cpu *summary.CPUStats, memory *summary.MemoryStats) {
	if cpu != nil {
		desc := prometheus.NewDesc(kind+"_cpu_usage_seconds_total", "Cumulative cpu time consumed by the "+kind+" in core-seconds", names, nil)
		e.emit(desc, prometheus.CounterValue, time.Duration(*cpu.UsageCoreNanoSeconds).Seconds(), cpu.Time.Time, values)
	}
	if memory != nil {
		desc := prometheus.NewDesc(kind+"_memory_working_set_bytes", "Current working set of the "+kind+" in bytes", names, nil)
		e.emit(desc, prometheus.GaugeValue, float64(*memory.WorkingSetBytes), memory.Time.Time, values)
	}
}

func (e emitter) emit(desc *prometheus.Desc, kind prometheus.ValueType, value float64, at time.Time, labels []string) {
	m := prometheus.MustNewConstMetric(desc, kind, value, labels...)
	if !at.IsZero() {
		m = prometheus.NewMetricWithTimestamp(at, m)
	}
	e.out <- m
}
