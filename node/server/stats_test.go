package server_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	summary "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// stats are always the same.
type stats struct{}

func (stats) Summary(context.Context) (*summary.Summary, error) {
	at := metav1.NewTime(time.UnixMilli(1_700_000_000_500))
	cpu := &summary.CPUStats{Time: at, UsageCoreNanoSeconds: new(uint64(2_500_000_000))}
	memory := &summary.MemoryStats{Time: at, WorkingSetBytes: new(uint64(4096))}
	return &summary.Summary{
		Node: summary.NodeStats{NodeName: "node", CPU: cpu, Memory: memory},
		Pods: []summary.PodStats{
			{
				PodRef: summary.PodReference{Name: "p", Namespace: "ns"}, CPU: cpu, Memory: memory,
				Containers: []summary.ContainerStats{{Name: "app", StartTime: metav1.NewTime(time.Unix(1_600_000_000, 0)), CPU: cpu, Memory: memory}},
			},
			{PodRef: summary.PodReference{Name: "new", Namespace: "ns"}},
		},
	}, nil
}

func TestResourceMetrics(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, threeLines))
	code, body := a.get(apiserver, "/metrics/resource")
	if code != 200 {
		t.Fatalf("status %d: %s", code, body)
	}
	var got []string
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`container_cpu_usage_seconds_total{container="app",namespace="ns",pod="p"} 2.5 1700000000500`,
		`container_memory_working_set_bytes{container="app",namespace="ns",pod="p"} 4096 1700000000500`,
		`container_start_time_seconds{container="app",namespace="ns",pod="p"} 1.6e+09`,
		`node_cpu_usage_seconds_total 2.5 1700000000500`,
		`node_memory_working_set_bytes 4096 1700000000500`,
		`pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 2.5 1700000000500`,
		`pod_memory_working_set_bytes{namespace="ns",pod="p"} 4096 1700000000500`,
		`resource_scrape_error 0`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, threeLines))
	code, body := a.get(apiserver, "/stats/summary")
	var got summary.Summary
	if err := json.Unmarshal([]byte(body), &got); code != 200 || err != nil {
		t.Fatalf("status %d, %v: %s", code, err, body)
	}
	if got.Node.NodeName != "node" || len(got.Pods) != 2 || *got.Pods[0].Containers[0].Memory.WorkingSetBytes != 4096 {
		t.Errorf("summary %s", body)
	}
	if code, _ := a.get("somebody", "/stats/summary"); code != 403 {
		t.Errorf("somebody else gets status %d, want 403", code)
	}
}
