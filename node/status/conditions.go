package status

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Owned reports whether the node agent writes a condition; all others belong to someone else and are kept as they are.
func Owned(t v1.PodConditionType) bool {
	switch t {
	case v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled:
		return true
	default:
		return false
	}
}

// conditions computes the agent's conditions and keeps the others; a transition time changes with the status only.
func conditions(in Pod, s *v1.PodStatus, byName map[string]v1.ContainerStatus, now metav1.Time) []v1.PodCondition {
	var out []v1.PodCondition
	for _, c := range in.Pod.Status.Conditions {
		if !Owned(c.Type) {
			out = append(out, c)
		}
	}
	ready := containersReady(in.Pod, s.Phase, byName)
	mine := []v1.PodCondition{
		condition(v1.PodReadyToStartContainers, in.Sandbox, "", ""),
		initialized(in.Pod, s.Phase, byName),
		podReady(in.Pod, ready, out),
		ready,
		condition(v1.PodScheduled, true, "", ""),
	}
	for _, c := range mine {
		c.LastTransitionTime, c.ObservedGeneration = now, in.Pod.Generation
		if old := find(in.Pod.Status.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime, c.LastProbeTime = old.LastTransitionTime, old.LastProbeTime
		} else if old := find(in.Last.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		out = append(out, c)
	}
	return out
}

func condition(t v1.PodConditionType, ok bool, reason, message string) v1.PodCondition {
	c := v1.PodCondition{Type: t, Status: v1.ConditionFalse, Reason: reason, Message: message}
	if ok {
		c.Status = v1.ConditionTrue
	}
	return c
}

func find(list []v1.PodCondition, t v1.PodConditionType) *v1.PodCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

func containersReady(pod *v1.Pod, phase v1.PodPhase, byName map[string]v1.ContainerStatus) v1.PodCondition {
	switch phase {
	case v1.PodSucceeded:
		return condition(v1.ContainersReady, false, conditionPodCompleted, "")
	case v1.PodFailed:
		return condition(v1.ContainersReady, false, conditionPodFailed, "")
	}
	var unready []string
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; IsSidecar(c) && !byName[c.Name].Ready {
			unready = append(unready, c.Name)
		}
	}
	for i := range pod.Spec.Containers {
		if name := pod.Spec.Containers[i].Name; !byName[name].Ready {
			unready = append(unready, name)
		}
	}
	if len(unready) > 0 {
		return condition(v1.ContainersReady, false, conditionContainersNot, fmt.Sprintf(formatUnreadyContainers, unready))
	}
	return condition(v1.ContainersReady, true, "", "")
}

func podReady(pod *v1.Pod, containers v1.PodCondition, others []v1.PodCondition) v1.PodCondition {
	if containers.Status != v1.ConditionTrue {
		return condition(v1.PodReady, false, containers.Reason, containers.Message)
	}
	var unready []string
	for _, gate := range pod.Spec.ReadinessGates {
		switch c := find(others, gate.ConditionType); {
		case c == nil:
			unready = append(unready, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(gate.ConditionType)))
		case c.Status != v1.ConditionTrue:
			unready = append(unready,
				fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", string(gate.ConditionType), c.Status))
		}
	}
	if len(unready) > 0 {
		return condition(v1.PodReady, false, conditionGatesNotReady, strings.Join(unready, ", "))
	}
	return condition(v1.PodReady, true, "", "")
}

func initialized(pod *v1.Pod, phase v1.PodPhase, byName map[string]v1.ContainerStatus) v1.PodCondition {
	if phase == v1.PodSucceeded {
		return condition(v1.PodInitialized, true, conditionPodCompleted, "")
	}
	for i := range pod.Spec.Containers {
		if hasRun(byName[pod.Spec.Containers[i].Name]) {
			return condition(v1.PodInitialized, true, "", "") // once initialised, restarting sidecars do not change it
		}
	}
	var incomplete []string
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		s := byName[c.Name]
		if done := s.Ready || IsSidecar(c) && s.Started != nil && *s.Started; !done {
			incomplete = append(incomplete, c.Name)
		}
	}
	if len(incomplete) > 0 {
		return condition(v1.PodInitialized, false, conditionInitIncomplete, fmt.Sprintf(formatUnfinishedContainer, incomplete))
	}
	return condition(v1.PodInitialized, true, "", "")
}
