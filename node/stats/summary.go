package stats

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	summary "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Summary is what kubelets answer to /stats/summary: processor, memory and network of the node, its pods and their containers.
func (s *Stats) Summary(ctx context.Context) (*summary.Summary, error) {
	report, err := s.meter.Measure(ctx)
	if err != nil {
		return nil, err
	}
	out := &summary.Summary{
		Node: summary.NodeStats{
			NodeName: s.o.Node, StartTime: metav1.NewTime(s.o.BootedAt), CPU: cpu(report.Machine), Memory: memory(report.Machine),
		},
		Pods: []summary.PodStats{},
	}
	for _, p := range s.o.Pods() {
		stats := podSummary(p, report)
		if !p.HostNetwork && len(p.Containers) > 0 {
			stats.Network = s.network(ctx, p.Containers[0].ID)
		}
		out.Pods = append(out.Pods, stats)
	}
	return out, nil
}

// podSummary adds up the containers of a pod: nothing else is in its cgroup.
func podSummary(p Pod, report Report) summary.PodStats {
	out := summary.PodStats{
		PodRef:    summary.PodReference{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
		StartTime: metav1.NewTime(p.StartedAt), Containers: []summary.ContainerStats{},
	}
	var sum Rate
	for i := range p.Containers {
		c := &p.Containers[i]
		r, ok := report.Containers[c.ID]
		if !ok {
			continue
		}
		out.Containers = append(out.Containers, summary.ContainerStats{
			Name: c.Name, StartTime: metav1.NewTime(c.StartedAt), CPU: cpu(r), Memory: memory(r),
		})
		sum.At, sum.CPU, sum.Cores = r.At, sum.CPU+r.CPU, sum.Cores+r.Cores
		sum.Memory, sum.WorkingSet, sum.RSS = sum.Memory+r.Memory, sum.WorkingSet+r.WorkingSet, sum.RSS+r.RSS
		sum.PageFaults, sum.MajorPageFaults = sum.PageFaults+r.PageFaults, sum.MajorPageFaults+r.MajorPageFaults
	}
	if len(out.Containers) > 0 {
		out.CPU, out.Memory = cpu(sum), memory(sum)
	}
	return out
}

func cpu(r Rate) *summary.CPUStats {
	return &summary.CPUStats{
		Time: metav1.NewTime(r.At), UsageNanoCores: new(uint64(r.Cores * 1e9)), UsageCoreNanoSeconds: new(uint64(r.CPU / time.Nanosecond)),
	}
}

func memory(r Rate) *summary.MemoryStats {
	return &summary.MemoryStats{
		Time: metav1.NewTime(r.At), UsageBytes: &r.Memory, WorkingSetBytes: &r.WorkingSet, RSSBytes: &r.RSS,
		PageFaults: &r.PageFaults, MajorPageFaults: &r.MajorPageFaults,
	}
}

// network is nil for a container that has just ended.
func (s *Stats) network(ctx context.Context, container string) *summary.NetworkStats {
	pid, err := s.o.PID(ctx, container)
	if err != nil || pid == 0 {
		return nil
	}
	interfaces, err := s.o.Reader.Networks(pid)
	if err != nil || len(interfaces) == 0 {
		return nil
	}
	out := &summary.NetworkStats{Time: metav1.Now()}
	for _, n := range interfaces {
		out.Interfaces = append(out.Interfaces, summary.InterfaceStats{
			Name: n.Name, RxBytes: &n.Received, RxErrors: &n.ReceiveErrors, TxBytes: &n.Sent, TxErrors: &n.SendErrors,
		})
	}
	out.InterfaceStats = out.Interfaces[0]
	return out
}
