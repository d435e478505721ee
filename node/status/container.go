package status

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of a waiting container, in kubelet's words.
const (
	ContainerCreating         = "ContainerCreating"
	PodInitializing           = "PodInitializing"
	ErrImagePull              = "ErrImagePull"
	ImagePullBackOff          = "ImagePullBackOff"
	ErrImageNeverPull         = "ErrImageNeverPull"
	InvalidImageName          = "InvalidImageName"
	CreateContainerConfigErr  = "CreateContainerConfigError"
	CreateContainerError      = "CreateContainerError"
	RunContainerError         = "RunContainerError"
	PostStartHookError        = "PostStartHookError"
	CrashLoopBackOff          = "CrashLoopBackOff"
	ReasonCompleted           = "Completed"
	ReasonError               = "Error"
	ReasonOOMKilled           = "OOMKilled"
	ReasonStartError          = "StartError"
	ReasonContainerCannotRun  = "ContainerCannotRun"
	ReasonStatusUnknown       = "ContainerStatusUnknown"
	messageLostAtTermination  = "The container could not be located when the pod was terminated"
	exitCodeOfLostContainers  = 137
	reasonDeadlineExceeded    = "DeadlineExceeded"
	messageDeadlineExceeded   = "Pod was active on the node longer than the specified deadline"
	runtimeScheme             = "weft://"
	conditionUnknownStatuses  = "UnknownContainerStatuses"
	conditionPodCompleted     = "PodCompleted"
	conditionPodFailed        = "PodFailed"
	conditionContainersNot    = "ContainersNotReady"
	conditionInitIncomplete   = "ContainersNotInitialized"
	conditionGatesNotReady    = "ReadinessGatesNotReady"
	formatUnknownContainers   = "containers with unknown status: %s"
	formatUnreadyContainers   = "containers with unready status: %s"
	formatUnfinishedContainer = "containers with incomplete status: %s"
)

// Container is what the agent knows about one container of a pod. The zero value is a container that was never started.
type Container struct {
	// Image is the normalised name and ImageID the digest of what Current runs; empty before the first start.
	Image, ImageID string
	// Current is the newest attempt that ran, nil before the first.
	Current *Attempt
	// Previous is how the attempt before Current ended.
	Previous *v1.ContainerStateTerminated
	// Restarts counts the attempts after the first.
	Restarts int32
	// Waiting says why no attempt runs although one should. It is ignored while Current runs.
	Waiting *v1.ContainerStateWaiting
	// Started is true when the startup probe and the postStart hook have passed.
	Started bool
	// Ready is the result of the readiness probe, true for a started container without one.
	Ready bool
}

// Attempt is one run of a container.
type Attempt struct {
	// ID is the runtime's identity, without a scheme.
	ID      string
	Running bool
	// StartedAt is when the process began; FinishedAt is zero while it runs.
	StartedAt, FinishedAt time.Time
	ExitCode, Signal      int
	// Reason and Message say how it ended.
	Reason, Message string
}

// IsRunning reports whether an attempt runs now.
func (c Container) IsRunning() bool { return c.Current != nil && c.Current.Running }

// Exited returns the newest attempt if it has ended, else nil.
func (c Container) Exited() *Attempt {
	if c.Current == nil || c.Current.Running {
		return nil
	}
	return c.Current
}

// Terminated is the attempt as the API shows an ended container.
func (a Attempt) Terminated() *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{
		ExitCode: int32(a.ExitCode), Signal: int32(a.Signal), Reason: a.Reason, Message: a.Message,
		StartedAt: metav1.NewTime(a.StartedAt), FinishedAt: metav1.NewTime(a.FinishedAt), ContainerID: ContainerID(a.ID),
	}
}

// ContainerID is the identity of a container in the form that the API uses, or empty for an empty id.
func ContainerID(id string) string {
	if id == "" {
		return ""
	}
	return runtimeScheme + id
}

// RuntimeID is the inverse of ContainerID.
func RuntimeID(containerID string) string {
	if len(containerID) > len(runtimeScheme) && containerID[:len(runtimeScheme)] == runtimeScheme {
		return containerID[len(runtimeScheme):]
	}
	return containerID
}

// containerStatus is the status of one container; waiting is the reason to show while nothing is known.
func containerStatus(spec *v1.Container, c Container, waiting string) v1.ContainerStatus {
	s := v1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, ImageID: c.ImageID, RestartCount: c.Restarts,
		Started: new(c.IsRunning() && c.Started), Ready: c.IsRunning() && c.Started && c.Ready,
		Resources: spec.Resources.DeepCopy(), AllocatedResources: spec.Resources.Requests.DeepCopy(),
		VolumeMounts: mountStatuses(spec.VolumeMounts),
	}
	if c.Image != "" {
		s.Image = c.Image
	}
	if c.Current != nil {
		s.ContainerID = ContainerID(c.Current.ID)
	}
	if c.Previous != nil {
		s.LastTerminationState.Terminated = c.Previous
	}
	switch {
	case c.IsRunning():
		s.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(c.Current.StartedAt)}
	case c.Waiting != nil:
		s.State.Waiting = c.Waiting.DeepCopy()
		if c.Current != nil {
			s.LastTerminationState.Terminated = c.Current.Terminated()
		}
	case c.Current != nil:
		s.State.Terminated = c.Current.Terminated()
	default:
		s.State.Waiting = &v1.ContainerStateWaiting{Reason: waiting}
	}
	return s
}

func mountStatuses(mounts []v1.VolumeMount) []v1.VolumeMountStatus {
	var out []v1.VolumeMountStatus
	for _, m := range mounts {
		s := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			s.RecursiveReadOnly = new(v1.RecursiveReadOnlyDisabled)
		}
		out = append(out, s)
	}
	return out
}
