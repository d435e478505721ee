package downward

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Source is a pod with what its object does not hold yet when its containers start.
type Source struct {
	Pod *v1.Pod
	// PodIP and HostIP are the addresses, empty when not known.
	PodIP, HostIP string
	// CPUs and MemoryBytes are the machine's capacity, which stands in for a limit that a container does not have.
	CPUs        int
	MemoryBytes int64
}

// Field is the value of a field by its path, for example "metadata.labels['app']". The error is what users see when the path is
// not supported.
func (s Source) Field(path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		return s.subscripted(path, base, key)
	}
	switch path {
	case "metadata.name":
		return s.Pod.Name, nil
	case "metadata.namespace":
		return s.Pod.Namespace, nil
	case "metadata.uid":
		return string(s.Pod.UID), nil
	case "metadata.labels":
		return lines(s.Pod.Labels), nil
	case "metadata.annotations":
		return lines(s.Pod.Annotations), nil
	case "spec.nodeName", "spec.host":
		return s.Pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return s.Pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return s.HostIP, nil
	case "status.podIP", "status.podIPs":
		return s.PodIP, nil
	default:
		return "", fmt.Errorf("unsupported fieldPath: %v", path)
	}
}

func (s Source) subscripted(path, base, key string) (string, error) {
	values, checked := s.Pod.Labels, key
	switch base {
	case "metadata.labels":
	case "metadata.annotations":
		values, checked = s.Pod.Annotations, strings.ToLower(key)
	default:
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	if errs := validation.IsQualifiedName(checked); len(errs) > 0 {
		return "", fmt.Errorf("invalid key subscript in %s: %s", path, strings.Join(errs, ";"))
	}
	return values[key], nil
}

// subscript splits "metadata.labels['app']" in its two parts.
func subscript(path string) (base, key string, ok bool) {
	inner, found := strings.CutSuffix(path, "']")
	if !found {
		return "", "", false
	}
	base, key, ok = strings.Cut(inner, "['")
	return base, key, ok && base != ""
}

// lines writes a map as sorted key="value" lines, which is the format of downward API volumes.
func lines(m map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(k + "=" + strconv.Quote(m[k]))
	}
	return b.String()
}
