package downward

import (
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resource is the value of a container's request or limit, rounded up to the selector's divisor. name is the container that
// asks; the selector may name another one.
func (s Source) Resource(sel *v1.ResourceFieldSelector, name string) (string, error) {
	if sel.ContainerName != "" {
		name = sel.ContainerName
	}
	c := s.container(name)
	if c == nil {
		return "", fmt.Errorf("container %s not found", name)
	}
	kind, res, ok := strings.Cut(sel.Resource, ".")
	if !ok || kind != "limits" && kind != "requests" || !supported(res) {
		return "", fmt.Errorf("unsupported container resource : %v", sel.Resource)
	}
	q := s.quantity(c, kind, v1.ResourceName(res))
	divisor := sel.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if res == string(v1.ResourceCPU) {
		return ceil(q.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(q.Value(), divisor.Value()), nil
}

func supported(res string) bool {
	switch v1.ResourceName(res) {
	case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage:
		return true
	default:
		return strings.HasPrefix(res, v1.ResourceHugePagesPrefix)
	}
}

func (s Source) quantity(c *v1.Container, kind string, name v1.ResourceName) resource.Quantity {
	if kind == "requests" {
		return c.Resources.Requests[name]
	}
	if q, ok := c.Resources.Limits[name]; ok {
		return q
	}
	switch name {
	case v1.ResourceCPU:
		return *resource.NewQuantity(int64(s.CPUs), resource.DecimalSI)
	case v1.ResourceMemory:
		return *resource.NewQuantity(s.MemoryBytes, resource.BinarySI)
	default:
		return resource.Quantity{}
	}
}

func (s Source) container(name string) *v1.Container {
	for i := range s.Pod.Spec.Containers {
		if s.Pod.Spec.Containers[i].Name == name {
			return &s.Pod.Spec.Containers[i]
		}
	}
	for i := range s.Pod.Spec.InitContainers {
		if s.Pod.Spec.InitContainers[i].Name == name {
			return &s.Pod.Spec.InitContainers[i]
		}
	}
	return nil
}

func ceil(value, divisor int64) string {
	if divisor <= 0 {
		divisor = 1
	}
	return strconv.FormatInt((value+divisor-1)/divisor, 10)
}
