package revision

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/status"
)

// slowStart is how long a container may run without being ready before its revision says so. Most are ready long before, and
// saying it at once would cost every start a status update.
const slowStart = 3 * time.Second

// reasonNotReady is the reason of ContainerHealthy while a container runs and its probe does not succeed.
const reasonNotReady = "ContainerNotReady"

// reflectDeployment copies what the Deployment and its pods, sorted by name, report.
func reflectDeployment(rs *servingv1.RevisionStatus, d *appsv1.Deployment, pods []corev1.Pod, s *config.Snapshot) {
	if c := rs.GetCondition(servingv1.RevisionConditionContainerHealthy); c.IsUnknown() && c.GetReason() == "" {
		rs.MarkContainerHealthyUnknown(servingv1.ReasonDeploying, "")
	}
	// Read before the Deployment's conditions overwrite it: kubelets alternate between two reasons for one failure.
	previous := rs.GetCondition(servingv1.RevisionConditionResourcesAvailable)
	reported := d.Status
	reported.Conditions = slices.Clone(reported.Conditions)
	for i := range reported.Conditions {
		// Upstream formats these messages twice on their way.
		reported.Conditions[i].Message = status.Escape(status.Escape(reported.Conditions[i].Message))
	}
	rs.PropagateDeploymentStatus(&reported)

	switch {
	case d.Status.ReadyReplicas > 0:
		rs.MarkContainerHealthyTrue()
	case wanted(d):
		// A revision that was ready once gets the time of its deadline before a pod that cannot start counts as a failure.
		hurry := !rs.GetCondition(servingv1.RevisionConditionContainerHealthy).IsTrue()
		reflectPods(rs, pods, s, hurry || timedOut(d))
	}

	// The registry's answer says more than that the node waits before it asks again.
	if rs.GetCondition(servingv1.RevisionConditionResourcesAvailable).GetReason() == reasonBackOff && previous.GetReason() == reasonPull {
		rs.MarkResourcesAvailableFalse(reasonPull, status.Escape(previous.GetMessage()))
	}
}

// reflectPods reports the first pod that says why there is no instance.
func reflectPods(rs *servingv1.RevisionStatus, pods []corev1.Pod, s *config.Snapshot, hurry bool) {
	for i := range pods {
		pod := &pods[i]
		if c := condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && !s.Deployment.PodIsAlwaysSchedulable {
			rs.MarkResourcesAvailableFalse(c.Reason, status.Escape(c.Message))
			return
		}
		if reflectContainers(rs, pod, hurry) {
			return
		}
	}
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
	rs.MarkResourcesAvailableFalse(w.Reason, status.Escape(message))
	return true
}

// reflectSlowStart reports a container that cannot be created yet, or has been running without being ready for longer than
// slowStart. It returns when to look again for one that has not been for so long, or zero. It comes last: of several conditions that are unknown, the
// one that is marked last explains why the revision is not ready.
func reflectSlowStart(rs *servingv1.RevisionStatus, pods []corev1.Pod, now time.Time) (wait time.Duration) {
	if !rs.GetCondition(servingv1.RevisionConditionContainerHealthy).IsUnknown() {
		return 0
	}
	for i := range pods {
		for j := range pods[i].Status.ContainerStatuses {
			c := &pods[i].Status.ContainerStatuses[j]
			if reflectCreating(rs, c) {
				return 0
			}
			if c.Ready || c.State.Running == nil {
				continue
			}
			left := c.State.Running.StartedAt.Add(slowStart).Sub(now)
			if left <= 0 {
				rs.MarkContainerHealthyUnknown(reasonNotReady, fmt.Sprintf(
					"Container %q is running, but its readiness probe%s has not succeeded yet.", c.Name, readinessOf(&pods[i], c.Name)))
				return 0
			}
			if wait == 0 || left < wait {
				wait = left
			}
		}
	}
	return wait
}

// reflectCreating reports what a container waits for before it can be created, as the secret of a volume, and whether there is
// such a thing. It may come yet, until the deadline.
func reflectCreating(rs *servingv1.RevisionStatus, c *corev1.ContainerStatus) bool {
	w := c.State.Waiting
	if w == nil || w.Message == "" || w.Reason != reasonCreating && w.Reason != reasonInitializing {
		return false
	}
	if rs.GetCondition(servingv1.RevisionConditionResourcesAvailable).IsFalse() {
		rs.MarkResourcesAvailableFalse(w.Reason, status.Escape(w.Message))
	} else {
		rs.MarkResourcesAvailableUnknown(w.Reason, status.Escape(w.Message))
	}
	return true
}

// wanted says whether the Deployment is to have an instance.
func wanted(d *appsv1.Deployment) bool {
	return d.Spec.Replicas != nil && *d.Spec.Replicas > 0
}

// reflectAutoscaler copies what the PodAutoscaler reports.
func reflectAutoscaler(rs *servingv1.RevisionStatus, pa *autoscalingv1alpha1.PodAutoscaler) {
	ps := pa.Status
	ps.Conditions = status.Verbatim(ps.Conditions)
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
	message := strings.TrimSpace(t.Message)
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
