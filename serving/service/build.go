package service

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/labeler"
)

// Configuration returns the configuration of a Service. existing is what is stored already, or empty: other routes may be
// noted on it, and they stay.
func Configuration(s *servingv1.Service, existing *servingv1.Configuration) *servingv1.Configuration {
	hidden := append([]string{corev1.LastAppliedConfigAnnotation}, serving.RolloutDurationAnnotation...)
	annotations := without(s.Annotations, hidden...)
	// The route is noted before it exists, so that the first revision is active from its first moment: its autoscaler would
	// otherwise hear of it twice.
	annotations[serving.RoutesAnnotationKey] = labeler.Add(existing.Annotations[serving.RoutesAnnotationKey], s.Name)
	labels := without(s.Labels)
	labels[serving.ServiceLabelKey] = s.Name
	labels[serving.ServiceUIDLabelKey] = string(s.UID)
	return &servingv1.Configuration{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, Namespace: s.Namespace, Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, s.GetGroupVersionKind())},
		},
		Spec: *s.Spec.ConfigurationSpec.DeepCopy(),
	}
}

// Route returns the route of a Service. A target that names no revision means the Service's own configuration.
func Route(s *servingv1.Service) *servingv1.Route {
	labels := without(s.Labels)
	labels[serving.ServiceLabelKey] = s.Name
	route := &servingv1.Route{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, Namespace: s.Namespace, Labels: labels,
			Annotations:     without(s.Annotations, corev1.LastAppliedConfigAnnotation),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, s.GetGroupVersionKind())},
		},
		Spec: *s.Spec.RouteSpec.DeepCopy(),
	}
	for i := range route.Spec.Traffic {
		if target := &route.Spec.Traffic[i]; target.RevisionName == "" {
			target.ConfigurationName = s.Name
		}
	}
	return route
}

// without copies m but for some keys. The result is never nil.
func without(m map[string]string, keys ...string) map[string]string {
	out := make(map[string]string, len(m)+2)
	maps.Copy(out, m)
	maps.DeleteFunc(out, func(key, _ string) bool { return slices.Contains(keys, key) })
	return out
}
