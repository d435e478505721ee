package stats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	summary "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/metrics/pkg/apis/metrics"
)

// newStats returns Stats of pods over counters in memory.
func newStats(k *kernel, pods []Pod) *Stats {
	s := New(Options{
		Node: "node", NodeLabels: map[string]string{"a": "b"}, Pods: func() []Pod { return pods }, BootedAt: k.began,
		PID:    func(context.Context, string) (int, error) { return 0, errors.New("no process") },
		Reader: k,
	})
	return s
}

func container(name string, started time.Time) Container {
	return Container{Name: name, Target: Target{ID: "id-" + name, Cgroup: "pod/" + name, StartedAt: started}}
}

func TestPodMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{began: time.Now(), gone: map[string]bool{"pod/ended": true}}
		labels := map[string]string{"app": "x"}
		s := newStats(k, []Pod{
			{Namespace: "one", Name: "both", Labels: labels, Containers: []Container{container("a", k.began), container("b", k.began)}},
			{Namespace: "one", Name: "partly", Containers: []Container{container("c", k.began), container("ended", k.began)}},
			{Namespace: "one", Name: "waiting"},
			{Namespace: "two", Name: "other", Containers: []Container{container("d", k.began)}},
		})
		pass(time.Hour)
		got, err := s.PodMetrics(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		usage := v1.ResourceList{v1.ResourceCPU: resource.MustParse("500m"), v1.ResourceMemory: resource.MustParse("42")}
		want := []metrics.PodMetrics{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "one", Name: "both", Labels: labels},
			Timestamp:  metav1.Now(), Window: metav1.Duration{Duration: time.Second},
			Containers: []metrics.ContainerMetrics{{Name: "a", Usage: usage}, {Name: "b", Usage: usage}},
		}}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(metav1.ObjectMeta{}, "CreationTimestamp")); diff != "" {
			t.Errorf("pods of one (-want +got):\n%s", diff)
		}
		all, err := s.PodMetrics(t.Context(), "")
		if err != nil || len(all) != 2 || all[1].Name != "other" {
			t.Errorf("all pods: %v, %v", all, err)
		}
		node, err := s.NodeMetrics(t.Context())
		if err != nil || node.Name != "node" || node.Labels["a"] != "b" || node.Usage.Cpu().String() != "1" || node.Usage.Memory().Value() != 42 {
			t.Errorf("node: %+v, %v", node, err)
		}
	})
}

func TestSummary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{began: time.Now(), networks: []Network{{Name: "eth0", Received: 7, Sent: 9}}}
		s := newStats(k, []Pod{
			{UID: "u", Namespace: "one", Name: "both", StartedAt: k.began, Containers: []Container{container("a", k.began), container("b", k.began)}},
			{Namespace: "one", Name: "host", HostNetwork: true, Containers: []Container{container("c", k.began)}},
		})
		s.o.PID = func(_ context.Context, id string) (int, error) {
			if id != "id-a" {
				return 0, fmt.Errorf("asked for the network of %s", id)
			}
			return 7, nil
		}
		pass(time.Minute)
		got, err := s.Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		both, host := got.Pods[0], got.Pods[1]
		if both.PodRef != (summary.PodReference{Name: "both", Namespace: "one", UID: "u"}) || len(both.Containers) != 2 {
			t.Errorf("pod %+v", both)
		}
		// Half a processor each, for 61 seconds.
		if cpu := both.Containers[0].CPU; *cpu.UsageNanoCores != 5e8 || *cpu.UsageCoreNanoSeconds != 305e8 {
			t.Errorf("container: %d nanocores, %d nanoseconds", *cpu.UsageNanoCores, *cpu.UsageCoreNanoSeconds)
		}
		if *both.CPU.UsageNanoCores != 1e9 || *both.CPU.UsageCoreNanoSeconds != 61e9 || *both.Memory.WorkingSetBytes != 84 {
			t.Errorf("sum: %d nanocores, %d nanoseconds, %d bytes", *both.CPU.UsageNanoCores, *both.CPU.UsageCoreNanoSeconds, *both.Memory.WorkingSetBytes)
		}
		if both.Network == nil || both.Network.Name != "eth0" || *both.Network.RxBytes != 7 || *both.Network.TxBytes != 9 {
			t.Errorf("network %+v", both.Network)
		}
		if host.Network != nil {
			t.Errorf("a pod in the machine's network has one of its own: %+v", host.Network)
		}
		if *got.Node.CPU.UsageNanoCores != 1e9 || !got.Node.StartTime.Time.Equal(k.began) {
			t.Errorf("node %+v", got.Node)
		}
	})
}
