package revision

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// DescribeProbe says in a few words what a probe does, for messages; it is empty for a probe that does nothing.
func DescribeProbe(p *corev1.Probe) string {
	switch {
	case p == nil:
		return ""
	case p.HTTPGet != nil:
		return fmt.Sprintf("GET %s on port %s", cmp.Or(p.HTTPGet.Path, "/"), p.HTTPGet.Port.String())
	case p.TCPSocket != nil:
		return "a TCP connection to port " + p.TCPSocket.Port.String()
	case p.GRPC != nil:
		return fmt.Sprintf("gRPC health on port %d", p.GRPC.Port)
	case p.Exec != nil:
		return "the command " + strings.Join(p.Exec.Command, " ")
	}
	return ""
}

// readinessOf is the readiness probe of a container of a pod in parentheses, with a space before, or nothing.
func readinessOf(pod *corev1.Pod, container string) string {
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == container && DescribeProbe(c.ReadinessProbe) != "" {
			return " (" + DescribeProbe(c.ReadinessProbe) + ")"
		}
	}
	return ""
}
