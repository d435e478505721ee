package node

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"

	"github.com/weft-dev/weft/node/pod"
	"github.com/weft-dev/weft/node/stats"
)

// Stats says what this machine and its pods use.
func (a *Agent) Stats() *stats.Stats { return a.stats }

func (a *Agent) newStats() (*stats.Stats, error) {
	reader, err := stats.NewReader(a.o.Instance.CgroupParent())
	if err != nil {
		return nil, err
	}
	return stats.New(stats.Options{
		Node: a.o.NodeName, NodeLabels: a.node.node().Labels, Pods: a.measurable, Reader: reader, BootedAt: reader.BootedAt(),
		PID: func(ctx context.Context, id string) (int, error) {
			s, err := a.o.Runtime.Status(ctx, id)
			return s.PID, err
		},
	}), nil
}

// measurable lists the pods with their containers that run, in a fixed order.
func (a *Agent) measurable() []stats.Pod {
	a.mu.Lock()
	views := make([]*pod.View, 0, len(a.workers))
	for _, w := range a.workers {
		views = append(views, w.View())
	}
	a.mu.Unlock()
	out := make([]stats.Pod, 0, len(views))
	for _, v := range views {
		p := stats.Pod{
			UID: string(v.Pod.UID), Namespace: v.Pod.Namespace, Name: v.Pod.Name, Labels: v.Pod.Labels,
			StartedAt: v.Pod.CreationTimestamp.Time, HostNetwork: v.Pod.Spec.HostNetwork,
		}
		for name, c := range v.Containers {
			if c.IsRunning() {
				id := c.Current.ID
				p.Containers = append(p.Containers, stats.Container{Name: name, Target: stats.Target{
					ID: id, Cgroup: filepath.Join(pod.Cgroup(v.Pod), id), StartedAt: c.Current.StartedAt,
				}})
			}
		}
		slices.SortFunc(p.Containers, func(x, y stats.Container) int { return cmp.Compare(x.Name, y.Name) })
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y stats.Pod) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return out
}
