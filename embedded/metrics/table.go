package metrics

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metricsapi "k8s.io/metrics/pkg/apis/metrics"
)

// ConvertToTable is what `kubectl get` shows of nodes.
func (*nodes) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := newTable(options)
	switch o := object.(type) {
	case *metricsapi.NodeMetrics:
		table.Rows = append(table.Rows, nodeRow(o))
	case *metricsapi.NodeMetricsList:
		for i := range o.Items {
			table.Rows = append(table.Rows, nodeRow(&o.Items[i]))
		}
	default:
		return nil, fmt.Errorf("showing %T as metrics of a node", object)
	}
	return table, nil
}

// ConvertToTable is what `kubectl get` shows of pods: the sum of their containers.
func (*pods) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := newTable(options)
	switch o := object.(type) {
	case *metricsapi.PodMetrics:
		table.Rows = append(table.Rows, podRow(o))
	case *metricsapi.PodMetricsList:
		for i := range o.Items {
			table.Rows = append(table.Rows, podRow(&o.Items[i]))
		}
	default:
		return nil, fmt.Errorf("showing %T as metrics of a pod", object)
	}
	return table, nil
}

func newTable(options runtime.Object) *metav1.Table {
	table := &metav1.Table{Rows: []metav1.TableRow{}}
	if o, ok := options.(*metav1.TableOptions); ok && o.NoHeaders {
		return table
	}
	table.ColumnDefinitions = []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the node or pod"},
		{Name: "cpu", Type: "string", Description: "Processors in use, on average over the window"},
		{Name: "memory", Type: "string", Description: "Memory of the working set"},
		{Name: "Window", Type: "string", Format: "duration", Description: "Time over which was measured"},
	}
	return table
}

func nodeRow(n *metricsapi.NodeMetrics) metav1.TableRow {
	return row(n.Name, n.Usage[corev1.ResourceCPU], n.Usage[corev1.ResourceMemory], n.Window, n)
}

func podRow(p *metricsapi.PodMetrics) metav1.TableRow {
	var cpu, memory apiresource.Quantity
	for i := range p.Containers {
		cpu.Add(p.Containers[i].Usage[corev1.ResourceCPU])
		memory.Add(p.Containers[i].Usage[corev1.ResourceMemory])
	}
	return row(p.Name, cpu, memory, p.Window, p)
}

func row(name string, cpu, memory apiresource.Quantity, window metav1.Duration, object runtime.Object) metav1.TableRow {
	const mebi = 1 << 20
	return metav1.TableRow{
		Cells: []any{
			name, fmt.Sprintf("%dm", cpu.MilliValue()), fmt.Sprintf("%dMi", memory.Value()/mebi),
			window.Round(100 * time.Millisecond).String(),
		},
		Object: runtime.RawExtension{Object: object},
	}
}
