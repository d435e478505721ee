package status

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is the input of Compute.
type Pod struct {
	// Pod is the object as the API has it; its status gives the conditions of others and the times of transitions.
	Pod *v1.Pod
	// Last is the status that was computed before, newer than the API's when a write is under way. It may be empty.
	Last v1.PodStatus
	// Containers by name: init, regular and ephemeral.
	Containers map[string]Container
	// Sandbox says that the pod's namespaces and address exist.
	Sandbox bool
	// HostIP is the machine's address; PodIP is the pod's or empty.
	HostIP, PodIP string
	// StartTime is when the agent first saw the pod.
	StartTime time.Time
	// Failure, when not empty, makes the pod fail for a reason that its containers do not show.
	Failure Failure
	// Final says that no container will run again, because the pod is being deleted or has failed.
	Final bool
	// Stopped says in addition that no container runs now, so that those without a result are reported as lost.
	Stopped bool
}

// Failure is why a pod failed as a whole.
type Failure struct{ Reason, Message string }

// DeadlineExceeded is the failure of a pod that was active longer than its activeDeadlineSeconds.
func DeadlineExceeded() Failure {
	return Failure{Reason: reasonDeadlineExceeded, Message: messageDeadlineExceeded}
}

// Compute returns the status of a pod at the moment now.
func Compute(in Pod, now time.Time) v1.PodStatus {
	pod := in.Pod
	s := v1.PodStatus{
		HostIP: in.HostIP, PodIP: in.PodIP, QOSClass: QOS(pod), ObservedGeneration: pod.Generation,
		NominatedNodeName: pod.Status.NominatedNodeName, ResourceClaimStatuses: pod.Status.ResourceClaimStatuses,
		Resize: pod.Status.Resize,
	}
	if in.HostIP != "" {
		s.HostIPs = []v1.HostIP{{IP: in.HostIP}}
	}
	if in.PodIP != "" {
		s.PodIPs = []v1.PodIP{{IP: in.PodIP}}
	}
	// Seconds are the API's resolution: a finer time would come back different and look like a change.
	s.StartTime = new(metav1.NewTime(in.StartTime.Truncate(time.Second)))
	if pod.Status.StartTime != nil {
		s.StartTime = pod.Status.StartTime.DeepCopy()
	}
	byName := make(map[string]v1.ContainerStatus, len(in.Containers))
	waiting := ContainerCreating
	if len(pod.Spec.InitContainers) > 0 {
		waiting = PodInitializing
	}
	s.InitContainerStatuses = list(in, pod.Spec.InitContainers, waiting, byName)
	for i := range s.InitContainerStatuses {
		cs := &s.InitContainerStatuses[i]
		if ended := cs.State.Terminated; ended != nil && !IsSidecar(&pod.Spec.InitContainers[i]) {
			cs.Ready = ended.ExitCode == 0
			byName[cs.Name] = *cs
		}
	}
	s.ContainerStatuses = list(in, pod.Spec.Containers, waiting, byName)
	s.EphemeralContainerStatuses = list(in, ephemeral(pod), ContainerCreating, byName)

	s.Phase = phase(pod, byName, in.Final)
	switch {
	case in.Failure != Failure{}:
		s.Phase, s.Reason, s.Message = v1.PodFailed, in.Failure.Reason, in.Failure.Message
	case terminal(pod.Status.Phase):
		s.Phase, s.Reason, s.Message = pod.Status.Phase, pod.Status.Reason, pod.Status.Message // a pod never leaves a terminal phase
	}
	s.Conditions = conditions(in, &s, byName, metav1.NewTime(now.Truncate(time.Second)))
	return s
}

func terminal(p v1.PodPhase) bool { return p == v1.PodSucceeded || p == v1.PodFailed }

// Terminal reports whether a pod in this phase never runs again.
func Terminal(p v1.PodPhase) bool { return terminal(p) }

func list(in Pod, specs []v1.Container, waiting string, byName map[string]v1.ContainerStatus) []v1.ContainerStatus {
	var out []v1.ContainerStatus
	for i := range specs {
		c := in.Containers[specs[i].Name]
		s := containerStatus(&specs[i], c, waiting)
		if in.Stopped && c.Current == nil && s.State.Terminated == nil {
			s = lost(s)
		}
		byName[s.Name] = s
		out = append(out, s)
	}
	return out
}

// lost is a container that never ran before its pod ended: the API has no other way to say that nothing runs.
func lost(s v1.ContainerStatus) v1.ContainerStatus {
	s.State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		Reason: ReasonStatusUnknown, Message: messageLostAtTermination, ExitCode: exitCodeOfLostContainers,
	}}
	return s
}

func ephemeral(pod *v1.Pod) []v1.Container {
	var out []v1.Container
	for i := range pod.Spec.EphemeralContainers {
		out = append(out, v1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return out
}
