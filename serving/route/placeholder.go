package route

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Placeholder returns the Kubernetes Service that holds the name of a route, or of a tag of it, in the cluster's DNS.
func (s Settings) Placeholder(r *servingv1.Route, tag string) (*corev1.Service, error) {
	name, err := s.Hostname(r.Name, tag)
	if err != nil {
		return nil, err
	}
	labels := make(map[string]string, len(r.Labels)+1)
	maps.Copy(labels, r.Labels)
	// Users set the label on a placeholder to hide one tag; what is said of the whole route is read from the route.
	delete(labels, VisibilityLabel)
	labels[serving.RouteLabelKey] = r.Name
	gateway := s.LocalGateway
	if gateway == "" {
		gateway = DefaultLocalGateway
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: r.Namespace, Labels: labels, Annotations: maps.Clone(r.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r, r.GetGroupVersionKind())},
		},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeExternalName,
			ExternalName:    gateway,
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name: "http2", Port: 80, TargetPort: intstr.FromInt32(80), Protocol: corev1.ProtocolTCP,
				AppProtocol: new("kubernetes.io/h2c"),
			}},
		},
	}, nil
}

// updatePlaceholder returns what have must become to be as want says, or nil when it is already. Labels and annotations that
// others have set stay.
func updatePlaceholder(have, want *corev1.Service) *corev1.Service {
	out := have.DeepCopy()
	out.Labels = union(have.Labels, want.Labels)
	out.Annotations = union(have.Annotations, want.Annotations)
	if have.Spec.Type != want.Spec.Type {
		// Nothing of another type may stay: cluster IPs, for one, are refused.
		out.Spec = want.Spec
	}
	out.Spec.ExternalName, out.Spec.Ports = want.Spec.ExternalName, want.Spec.Ports
	if equality.Semantic.DeepEqual(have, out) {
		return nil
	}
	return out
}

func union(have, want map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = make(map[string]string, len(want))
	}
	maps.Copy(out, want)
	return out
}
