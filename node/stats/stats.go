package stats

import (
	"context"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/metrics/pkg/apis/metrics"
)

// Pod is a pod of this machine with its containers that run.
type Pod struct {
	UID, Namespace, Name string
	Labels               map[string]string
	StartedAt            time.Time
	// HostNetwork says that the pod's interfaces are those of the machine.
	HostNetwork bool
	Containers  []Container
}

// Container is a container that runs.
type Container struct {
	Name string
	Target
}

// Options of Stats. All but the labels are required.
type Options struct {
	// Node is the name of this machine in the API.
	Node       string
	NodeLabels map[string]string
	// Pods lists the pods of this machine. It may be called concurrently.
	Pods func() []Pod
	// PID is the first process of a container, in whose network the pod is.
	PID func(ctx context.Context, container string) (int, error)
	// Reader reads the kernel's counters.
	Reader Counters
	// BootedAt is since when the machine's counters count.
	BootedAt time.Time
}

// Stats says what this machine and its pods use, in the types of the API and of kubelets. It may be used concurrently.
type Stats struct {
	o     Options
	meter *Meter
}

// New returns Stats that have measured nothing yet.
func New(o Options) *Stats {
	s := &Stats{o: o}
	s.meter = NewMeter(o.Reader, s.targets)
	return s
}

func (s *Stats) targets() []Target {
	var out []Target
	for _, p := range s.o.Pods() {
		for i := range p.Containers {
			out = append(out, p.Containers[i].Target)
		}
	}
	return out
}

// NodeMetrics says what the machine uses.
func (s *Stats) NodeMetrics(ctx context.Context) (*metrics.NodeMetrics, error) {
	report, err := s.meter.Measure(ctx)
	if err != nil {
		return nil, err
	}
	m := report.Machine
	return &metrics.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: s.o.Node, Labels: maps.Clone(s.o.NodeLabels), CreationTimestamp: metav1.Now()},
		Timestamp:  metav1.NewTime(m.At), Window: metav1.Duration{Duration: m.Window}, Usage: resources(m),
	}, nil
}

// PodMetrics says what the pods of a namespace use, or those of all for an empty one. A pod is missing until all of its containers
// have run for half a second.
func (s *Stats) PodMetrics(ctx context.Context, namespace string) ([]metrics.PodMetrics, error) {
	report, err := s.meter.Measure(ctx)
	if err != nil {
		return nil, err
	}
	out := []metrics.PodMetrics{}
	for _, p := range s.o.Pods() {
		if namespace != "" && p.Namespace != namespace {
			continue
		}
		if m, ok := podMetrics(p, report); ok {
			out = append(out, m)
		}
	}
	return out, nil
}

func podMetrics(p Pod, report Report) (metrics.PodMetrics, bool) {
	m := metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.Namespace, Name: p.Name, Labels: maps.Clone(p.Labels), CreationTimestamp: metav1.Now(),
	}}
	for i := range p.Containers {
		r, ok := report.Containers[p.Containers[i].ID]
		if !ok {
			return m, false
		}
		// One window stands for all containers. The shortest is that of the one which started last.
		if m.Window.Duration == 0 || r.Window < m.Window.Duration {
			m.Window.Duration, m.Timestamp = r.Window, metav1.NewTime(r.At)
		}
		m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: p.Containers[i].Name, Usage: resources(r)})
	}
	return m, len(m.Containers) > 0
}

func resources(r Rate) v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:    *resource.NewScaledQuantity(int64(r.Cores*1e9), resource.Nano),
		v1.ResourceMemory: *resource.NewQuantity(int64(r.WorkingSet), resource.BinarySI),
	}
}
