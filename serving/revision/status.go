package revision

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

// slowStart is how long a container may run without being ready before its revision says so. Most are ready long before, and
// saying it at once would cost every start a status update.
const slowStart = 3 * time.Second

// reasonNotReady is the reason of ContainerHealthy while a container runs and its probe does not succeed.
const reasonNotReady = "ContainerNotReady"

// reflectDeployment copies what the Deployment and its pods report. It returns after what time to look again though nothing
// changes, or zero.
func reflectDeployment(rs *servingv1.RevisionStatus, d *appsv1.Deployment, pods []corev1.Pod, s *config.Snapshot, now time.Time) time.Duration {
	// Read before the Deployment's conditions overwrite it: kubelets alternate between two reasons for one failure.
	previous := rs.GetCondition(servingv1.RevisionConditionResourcesAvailable)
	rs.PropagateDeploymentStatus(&d.Status)

	var wait time.Duration
	switch {
	case d.Status.ReadyReplicas > 0:
		rs.MarkContainerHealthyTrue()
	case d.Spec.Replicas != nil && *d.Spec.Replicas > 0:
		// A revision that was ready once gets the time of its deadline before a pod that cannot start counts as a failure.
		hurry := !rs.GetCondition(servingv1.RevisionConditionContainerHealthy).IsTrue()
		wait = reflectPods(rs, pods, s, hurry || timedOut(d), now)
	}

	// The registry's answer says more than that the node waits before it asks again.
	if now := rs.GetCondition(servingv1.RevisionConditionResourcesAvailable); now.GetReason() == reasonBackOff && previous.GetReason() == reasonPull {
		rs.MarkResourcesAvailableFalse(reasonPull, escape(previous.GetMessage()))
	}
	return wait
}

// reflectPods reports the first pod, by name, that says why there is no instance.
func reflectPods(rs *servingv1.RevisionStatus, pods []corev1.Pod, s *config.Snapshot, hurry bool, now time.Time) (wait time.Duration) {
	pods = slices.DeleteFunc(slices.Clone(pods), func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for i := range pods {
		pod := &pods[i]
		if c := condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && !s.Deployment.PodIsAlwaysSchedulable {
			rs.MarkResourcesAvailableFalse(c.Reason, escape(c.Message))
			return 0
		}
		if reflectContainers(rs, pod, hurry) {
			return 0
		}
	}
	if rs.GetCondition(servingv1.RevisionConditionContainerHealthy).IsTrue() {
		return 0
	}
	for i := range pods {
		if w := reflectSlowStart(rs, &pods[i], now); w > 0 && (wait == 0 || w < wait) {
			wait = w
		}
	}
	return wait
}

// reflectContainers reports the first container of a pod that ended or cannot start, and whether there is one.
func reflectContainers(rs *servingv1.RevisionStatus, pod *corev1.Pod, hurry bool) bool {
	for i := range pod.Status.InitContainerStatuses {
		c := &pod.Status.InitContainerStatuses[i]
		if t := ended(c); t != nil && t.ExitCode != 0 {
			rs.MarkContainerHealthyFalse(servingv1.ExitCodeReason(t.ExitCode), exitMessage(t))
			return true
		}
		if reflectWaiting(rs, c, hurry) {
			return true
		}
	}
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		if t := ended(c); t != nil {
			rs.MarkContainerHealthyFalse(servingv1.ExitCodeReason(t.ExitCode), exitMessage(t))
			return true
		}
		if reflectWaiting(rs, c, hurry) {
			return true
		}
	}
	return false
}

// Waiting reasons of a kubelet.
const (
	reasonCreating     = "ContainerCreating"
	reasonInitializing = "PodInitializing"
	reasonPull         = "ErrImagePull"
	reasonBackOff      = "ImagePullBackOff"
)

// reflectWaiting reports a container that cannot start. Without hurry nothing is reported.
func reflectWaiting(rs *servingv1.RevisionStatus, c *corev1.ContainerStatus, hurry bool) bool {
	w := c.State.Waiting
	if w == nil || !hurry {
		return false
	}
	message := w.Message
	switch w.Reason {
	case "", reasonCreating, reasonInitializing:
		return false
	case reasonPull, reasonBackOff, "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
		message = servingv1.RevisionContainerMissingMessage(c.Image, message)
	}
	rs.MarkResourcesAvailableFalse(w.Reason, escape(message))
	return true
}

// reflectSlowStart reports containers that run but are not ready for longer than slowStart, or returns when they will be.
func reflectSlowStart(rs *servingv1.RevisionStatus, pod *corev1.Pod, now time.Time) time.Duration {
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		if c.Ready || c.State.Running == nil {
			continue
		}
		if wait := c.State.Running.StartedAt.Add(slowStart).Sub(now); wait > 0 {
			return wait
		}
		rs.MarkContainerHealthyUnknown(reasonNotReady,
			fmt.Sprintf("Container %q is running, but its readiness probe has not succeeded yet.", c.Name))
		return 0
	}
	return 0
}

// reflectAutoscaler copies what the PodAutoscaler reports.
func reflectAutoscaler(rs *servingv1.RevisionStatus, pa *autoscalingv1alpha1.PodAutoscaler) {
	ps := pa.Status
	if ps.ServiceName == "" {
		// Upstream waits for the Kubernetes Service of the revision. There is none here: the data plane learns the endpoints
		// from the pods, so that the revision is reachable as soon as its PodAutoscaler says so.
		ps.ServiceName = pa.Name
	}
	rs.PropagateAutoscalerStatus(&ps)
}

// ended returns how a container ended, now or before its present attempt, or nil.
func ended(c *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if c.State.Terminated != nil {
		return c.State.Terminated
	}
	return c.LastTerminationState.Terminated
}

func exitMessage(t *corev1.ContainerStateTerminated) string {
	message := t.Message
	if message == "" && t.ExitCode == 0 {
		message = "container exited with no error"
	}
	if message == "" {
		// Exit codes of signals and out-of-memory kills leave no log; the reason is all there is.
		message = t.Reason
	}
	return servingv1.RevisionContainerExitingMessage(message)
}

// timedOut says whether the Deployment has given up waiting for progress.
func timedOut(d *appsv1.Deployment) bool {
	return slices.ContainsFunc(d.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse &&
			c.Reason == servingv1.ReasonProgressDeadlineExceeded
	})
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == kind {
			return c
		}
	}
	return nil
}

// escape protects percent signs from the methods of RevisionStatus that take their message as a format.
func escape(message string) string {
	return strings.ReplaceAll(message, "%", "%%")
}
