package discovery

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/mesh/config"
)

// PodEndpoint is the endpoint that a Pod of a revision provides now: nil while it is not ready, draining once its deletion has
// been asked for, because then its requests in flight go on and new ones must not come.
func PodEndpoint(pod *corev1.Pod) *config.Endpoint {
	finished := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	deleted := pod.DeletionTimestamp != nil
	if pod.Status.PodIP == "" || finished || !deleted && !ready(pod) {
		return nil
	}
	return &config.Endpoint{
		Address:  pod.Status.PodIP,
		Port:     servingPort(pod),
		Pod:      pod.Namespace + "/" + pod.Name,
		Draining: deleted,
	}
}

func ready(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if cond := &pod.Status.Conditions[i]; cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// servingPort is the port named user-port, else the first one that any container declares, else the default of the Knative runtime contract.
func servingPort(pod *corev1.Pod) uint32 {
	first := int32(servingv1.DefaultUserPort)
	found := false
	for i := range pod.Spec.Containers {
		for _, port := range pod.Spec.Containers[i].Ports {
			if port.Name == servingv1.UserPortName {
				return uint32(port.ContainerPort)
			}
			if !found {
				first, found = port.ContainerPort, true
			}
		}
	}
	return uint32(first)
}

// revisionOf is the revision that a Pod runs; ok is false for other Pods.
func revisionOf(pod *corev1.Pod) (key types.NamespacedName, ok bool) {
	name := pod.Labels[serving.RevisionLabelKey]
	return types.NamespacedName{Namespace: pod.Namespace, Name: name}, name != ""
}
