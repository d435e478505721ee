package status

import v1 "k8s.io/api/core/v1"

// counts sums up the containers of a pod in the way that its phase depends on.
type counts struct {
	pendingInit, pendingSidecars, failedInit               int
	unknown, running, waiting, stopped, succeeded, forGood int
}

// phase is kubelet's rule for the phase of a pod. final says that no container will be started again, whatever the policy.
func phase(pod *v1.Pod, statuses map[string]v1.ContainerStatus, final bool) v1.PodPhase {
	var n counts
	started := n.addAll(pod, statuses)
	switch {
	case n.failedInit > 0:
		return v1.PodFailed
	case n.pendingInit > 0 && !final, n.pendingSidecars > 0 && !started && !final:
		return v1.PodPending
	case n.waiting > 0:
		return v1.PodPending
	case n.running > 0 && n.unknown == 0:
		return v1.PodRunning
	case n.running == 0 && n.stopped > 0 && n.unknown == 0:
		return n.ended(final)
	default:
		return v1.PodPending
	}
}

// addAll counts all containers and reports whether a regular one has run.
func (n *counts) addAll(pod *v1.Pod, statuses map[string]v1.ContainerStatus) (started bool) {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if IsSidecar(c) {
			n.addSidecar(statuses[c.Name])
		} else {
			n.addInit(pod, c, statuses[c.Name])
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		n.add(pod, c, statuses[c.Name])
		started = started || hasRun(statuses[c.Name])
	}
	return started
}

func (n *counts) ended(final bool) v1.PodPhase {
	switch {
	case !final && n.forGood < n.stopped:
		return v1.PodRunning // some are about to be restarted
	case n.stopped == n.succeeded:
		return v1.PodSucceeded
	default:
		return v1.PodFailed
	}
}

func (n *counts) addInit(pod *v1.Pod, c *v1.Container, s v1.ContainerStatus) {
	ended := s.State.Terminated
	if s.State.Waiting != nil {
		ended = s.LastTerminationState.Terminated
	}
	switch {
	case s.State.Running != nil || ended == nil:
		n.pendingInit++
	case ended.ExitCode != 0 && ShouldRestart(pod, c, true, int(ended.ExitCode)):
		n.pendingInit++
	case ended.ExitCode != 0:
		n.failedInit++
	}
}

func (n *counts) addSidecar(s v1.ContainerStatus) {
	switch {
	case s.State.Running != nil:
		n.running++
		if s.Started == nil || !*s.Started {
			n.pendingSidecars++
		}
	case s.State.Terminated != nil, s.LastTerminationState.Terminated != nil:
		// An ended sidecar has no say in the phase.
	default:
		n.pendingSidecars++
		n.waiting++
	}
}

func (n *counts) add(pod *v1.Pod, c *v1.Container, s v1.ContainerStatus) {
	ended := s.State.Terminated
	if s.State.Waiting != nil {
		ended = s.LastTerminationState.Terminated
	}
	switch {
	case s.State.Running != nil:
		n.running++
	case ended != nil:
		n.stopped++
		if ended.ExitCode == 0 {
			n.succeeded++
		}
		if !ShouldRestart(pod, c, false, int(ended.ExitCode)) {
			n.forGood++
		}
	case s.State.Waiting != nil:
		n.waiting++
	default:
		n.unknown++
	}
}

func hasRun(s v1.ContainerStatus) bool {
	return s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
}
