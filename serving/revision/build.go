package revision

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/names"
)

const (
	appLabel                   = "app"
	defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"
)

// Deployment returns the Deployment of a revision. Its replicas are only those to start with: afterwards the number belongs
// to the autoscaler.
func Deployment(r *servingv1.Revision, s *config.Snapshot) (*appsv1.Deployment, error) {
	podLabels := labels(r)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name: names.Deployment(r.Name), Namespace: r.Namespace,
			Labels: maps.Clone(podLabels), Annotations: annotations(r, false),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r, r.GetGroupVersionKind())},
		},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(s.Autoscaler.InitialScaleOf(r.Annotations)),
			// Labels of a revision may change, the selector of a Deployment may not: only the UID is safe.
			Selector:                &metav1.LabelSelector{MatchLabels: map[string]string{serving.RevisionUID: string(r.UID)}},
			ProgressDeadlineSeconds: new(int32(progressDeadline(r, s).Seconds())),
			RevisionHistoryLimit:    new(int32(0)),
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType,
				// No instance goes before its replacement is ready.
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromInt32(0))},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: podLabels, Annotations: podAnnotations(r)},
				Spec:       PodSpec(r, s),
			},
		},
	}
	sum, err := hash(d)
	if err != nil {
		return nil, fmt.Errorf("hashing Deployment %q: %w", d.Name, err)
	}
	d.Labels[serving.RevisionDeploymentHashLabelKey] = sum
	return d, nil
}

// hash identifies what we want of a Deployment. Comparing with what is stored would not do: the API server adds defaults, and
// users add labels. The replicas are left out, for they are not ours.
func hash(d *appsv1.Deployment) (string, error) {
	spec := d.Spec
	spec.Replicas = nil
	data, err := json.Marshal([]any{spec, d.Labels, d.Annotations})
	if err != nil {
		return "", err
	}
	h := fnv.New32a()
	_, _ = h.Write(data) // never fails, by its contract
	return strconv.FormatUint(uint64(h.Sum32()), 36), nil
}

// Update returns what have must become to be as want says, or nil when it is already.
func Update(have, want *appsv1.Deployment) *appsv1.Deployment {
	const key = serving.RevisionDeploymentHashLabelKey
	if have.Labels[key] == want.Labels[key] {
		return nil
	}
	d := have.DeepCopy()
	d.Spec = want.Spec
	d.Spec.Replicas, d.Spec.Selector = have.Spec.Replicas, have.Spec.Selector
	d.Labels = overlay(have.Labels, want.Labels)
	d.Annotations = overlay(have.Annotations, want.Annotations)
	// kubectl rollout restart works by an annotation of the template.
	d.Spec.Template.Labels = overlay(have.Spec.Template.Labels, want.Spec.Template.Labels)
	d.Spec.Template.Annotations = overlay(have.Spec.Template.Annotations, want.Spec.Template.Annotations)
	return d
}

// overlay keeps the keys of have that others have set and takes everything of Knative from want.
func overlay(have, want map[string]string) map[string]string {
	out := make(map[string]string, len(have)+len(want))
	for key, value := range have {
		if key != appLabel && !strings.Contains(key, "knative.dev/") {
			out[key] = value
		}
	}
	maps.Copy(out, want)
	return out
}

// PodAutoscaler returns the PodAutoscaler of a revision. d is its Deployment as stored.
func PodAutoscaler(r *servingv1.Revision, d *appsv1.Deployment, s *config.Snapshot) *autoscalingv1alpha1.PodAutoscaler {
	pa := &autoscalingv1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name: names.PodAutoscaler(r.Name), Namespace: r.Namespace,
			Labels: labels(r), Annotations: annotations(r, true),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r, r.GetGroupVersionKind())},
		},
		Spec: autoscalingv1alpha1.PodAutoscalerSpec{
			ContainerConcurrency: r.Spec.GetContainerConcurrency(),
			ScaleTargetRef:       corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: names.Deployment(r.Name)},
			ProtocolType:         r.GetProtocol(),
			Reachability:         reachability(r, d),
		},
	}
	if _, ok := pa.Annotations[autoscaling.ClassAnnotationKey]; !ok && s.Autoscaler.Class != "" {
		pa.Annotations[autoscaling.ClassAnnotationKey] = s.Autoscaler.Class
	}
	return pa
}

// reachability says whether traffic can come. A revision whose infrastructure failed before it had a ready instance counts
// as unreachable, so that its minimum scale does not keep it failing for ever.
func reachability(r *servingv1.Revision, d *appsv1.Deployment) autoscalingv1alpha1.ReachabilityType {
	failed := r.Status.GetCondition(servingv1.RevisionConditionResourcesAvailable).IsFalse() ||
		r.Status.GetCondition(servingv1.RevisionConditionContainerHealthy).IsFalse()
	if failed && wanted(d) && d.Status.ReadyReplicas == 0 {
		return autoscalingv1alpha1.ReachabilityUnreachable
	}
	switch r.GetRoutingState() {
	case servingv1.RoutingStateActive:
		return autoscalingv1alpha1.ReachabilityReachable
	case servingv1.RoutingStateReserve:
		return autoscalingv1alpha1.ReachabilityUnreachable
	case servingv1.RoutingStatePending, servingv1.RoutingStateUnset:
	}
	return autoscalingv1alpha1.ReachabilityUnknown
}

// scaling returns have with the autoscaling annotations of want: those that the revision no longer has go, but for the two
// that admission fills in.
func scaling(have, want map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = make(map[string]string, len(want))
	}
	filled := slices.Concat(autoscaling.ClassAnnotation, autoscaling.MetricAnnotation)
	maps.DeleteFunc(out, func(key, _ string) bool {
		return strings.HasPrefix(key, autoscaling.GroupName) && !slices.Contains(filled, key)
	})
	maps.Copy(out, want)
	return out
}

// labels returns those of the Deployment, the pods and the PodAutoscaler. The routing state is left out: it changes, and a
// change of a pod's labels means new pods.
func labels(r *servingv1.Revision) map[string]string {
	out := maps.Clone(r.Labels)
	if out == nil {
		out = make(map[string]string, 3)
	}
	delete(out, serving.RouteLabelKey)
	delete(out, serving.RoutingStateLabelKey)
	out[serving.RevisionLabelKey] = r.Name
	out[serving.RevisionUID] = string(r.UID)
	if _, ok := out[appLabel]; !ok {
		out[appLabel] = r.Name
	}
	return out
}

// annotations returns the revision's without those that change with its traffic, and without those of the autoscaler unless
// it is to have them.
func annotations(r *servingv1.Revision, withScaling bool) map[string]string {
	out := make(map[string]string, len(r.Annotations)+1)
	for key, value := range r.Annotations {
		switch key {
		case serving.RevisionLastPinnedAnnotationKey, serving.RevisionPreservedAnnotationKey,
			serving.RoutingStateModifiedAnnotationKey, serving.RoutesAnnotationKey:
			continue
		}
		if withScaling || !strings.HasPrefix(key, autoscaling.GroupName) {
			out[key] = value
		}
	}
	return out
}

func podAnnotations(r *servingv1.Revision) map[string]string {
	out := annotations(r, false)
	if name := r.Spec.GetContainer().Name; name != "" {
		out[defaultContainerAnnotation] = name
	}
	return out
}

func progressDeadline(r *servingv1.Revision, s *config.Snapshot) time.Duration {
	if _, value, ok := serving.ProgressDeadlineAnnotation.Get(r.Annotations); ok {
		if d, err := time.ParseDuration(value); err == nil {
			return d
		}
	}
	return s.Deployment.ProgressDeadline
}
