package env

import (
	"net"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Services returns the variables by which containers of a namespace find services, in the form that Docker links introduced. The
// service kubernetes is always among them, because clients inside pods find the API by it; the others of the namespace are only
// with links.
func Services(services []*v1.Service, namespace string, links bool) map[string]string {
	out := make(map[string]string)
	for _, s := range services {
		master := s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		if s.Namespace == namespace && links {
			add(out, s)
		} else if _, shadowed := out["KUBERNETES_SERVICE_HOST"]; master && !shadowed {
			add(out, s)
		}
	}
	return out
}

func add(out map[string]string, s *v1.Service) {
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	out[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
	out[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			out[prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = port
		}
		protocol := string(p.Protocol)
		if protocol == "" {
			protocol = string(v1.ProtocolTCP)
		}
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(s.Spec.ClusterIP, port)
		if i == 0 {
			out[prefix+"_PORT"] = url
		}
		link := prefix + "_PORT_" + port + "_" + strings.ToUpper(protocol)
		out[link] = url
		out[link+"_PROTO"] = strings.ToLower(protocol)
		out[link+"_PORT"] = port
		out[link+"_ADDR"] = s.Spec.ClusterIP
	}
}
