package telemetry

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestGaugesShowTheFirstRequest is about a cold start: the request that waits for the first instance must be seen while it waits.
func TestGaugesShowTheFirstRequest(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	backend := metrics.Backend("revision/ns/rev", func() {})
	backend.Label(Labels{Namespace: "ns", Revision: "rev"})
	if got := gauge(t, registry, "weft_requests_parked"); len(got) != 0 {
		t.Errorf("without a request there are %d time series, want none", len(got))
	}

	arrived := time.Now()
	backend.Start(arrived)
	backend.Load.Parked()
	if got := gauge(t, registry, "weft_requests_parked"); len(got) != 1 || got[0] != 1 {
		t.Errorf("while the first request is parked the gauge is %v, want 1", got)
	}
	backend.Load.Unparked()
	if got := gauge(t, registry, "weft_requests_in_flight"); len(got) != 1 || got[0] != 1 {
		t.Errorf("while the first request is in flight the gauge is %v, want 1", got)
	}
	backend.End(200, arrived, time.Now())
	if got := gauge(t, registry, "weft_requests_in_flight"); len(got) != 1 || got[0] != 0 {
		t.Errorf("after the first request the gauge is %v, want 0", got)
	}
}

// gauge gathers the values of all time series of a metric.
func gauge(t *testing.T, registry *prometheus.Registry, name string) []float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var values []float64
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			values = append(values, metric.GetGauge().GetValue())
		}
	}
	return values
}
