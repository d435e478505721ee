package pod

import (
	"path/filepath"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/status"
)

// adopt fills the units with the containers that an earlier process of the agent left, and with what the API remembers.
func (w *Worker) adopt() {
	known := map[string]*v1.ContainerStatus{}
	s := &w.pod.Status
	for _, list := range [][]v1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			known[list[i].Name] = &list[i]
		}
	}
	newest := map[string]container.Info{}
	for _, info := range w.adopted {
		name := info.Labels[LabelContainer]
		if old, ok := newest[name]; !ok || attemptOf(old) < attemptOf(info) {
			newest[name] = info
		}
	}
	for _, u := range w.order {
		api := known[u.spec.Name]
		if info, ok := newest[u.spec.Name]; ok {
			u.adopt(info, api)
		} else if api != nil {
			u.remember(api)
			u.logPath = filepath.Join(w.logDir(w.pod), u.name, strconv.Itoa(int(u.Restarts))+".log")
		}
	}
}

func attemptOf(i container.Info) int {
	n, err := strconv.Atoi(i.Labels[LabelAttempt])
	if err != nil {
		return 0 // a container from a version without the label
	}
	return n
}

// adopt takes over a container that exists.
func (u *unit) adopt(info container.Info, api *v1.ContainerStatus) {
	u.Restarts = int32(attemptOf(info))
	u.Image, u.ImageID, u.logPath = info.Labels[LabelImage], info.Labels[LabelImageID], info.LogPath
	u.stopSignal, _ = strconv.Atoi(info.Labels[LabelSignal])
	u.Current = &status.Attempt{ID: info.ID, Running: true, StartedAt: info.Status.StartedAt}
	if info.Status.State != container.StateRunning {
		// The message is lost with the process that would have read it, unless the API has it.
		message := ""
		if api != nil && api.State.Terminated != nil && status.RuntimeID(api.ContainerID) == info.ID {
			message = api.State.Terminated.Message
		}
		*u.Current = ended(*u.Current, info.Status, message)
	}
	if api == nil {
		return
	}
	if status.RuntimeID(api.ContainerID) == info.ID {
		u.Previous = api.LastTerminationState.Terminated
		u.Started = u.IsRunning() && api.Started != nil && *api.Started
		u.Ready = u.Started && api.Ready
		return
	}
	// A newer attempt than the API knows: what the API saw running or ended is the attempt before.
	switch {
	case api.State.Terminated != nil:
		u.Previous = api.State.Terminated
	case api.LastTerminationState.Terminated != nil:
		u.Previous = api.LastTerminationState.Terminated
	}
}

// remember takes over what the API knows about a container that no longer exists.
func (u *unit) remember(api *v1.ContainerStatus) {
	u.Restarts, u.Image, u.ImageID = api.RestartCount, api.Image, api.ImageID
	u.Previous = api.LastTerminationState.Terminated
	switch {
	case api.State.Terminated != nil:
		t := api.State.Terminated
		u.Current = &status.Attempt{
			ID: status.RuntimeID(t.ContainerID), StartedAt: t.StartedAt.Time, FinishedAt: t.FinishedAt.Time,
			ExitCode: int(t.ExitCode), Signal: int(t.Signal), Reason: t.Reason, Message: t.Message,
		}
	case api.State.Running != nil:
		a := status.Attempt{ID: status.RuntimeID(api.ContainerID), StartedAt: api.State.Running.StartedAt.Time}
		u.Current = &a
		*u.Current = ended(a, container.Status{State: container.StateUnknown, FinishedAt: time.Now()}, "")
	}
}

// NewOrphan returns a worker that stops and removes a pod that the API forgot while no agent ran, from what is left of it in its
// directory below root. containers are those of the pod.
func NewOrphan(o Options, uid types.UID, containers []container.Info) (*Worker, error) {
	c, err := readCheckpoint(filepath.Join(o.Root, string(uid)))
	if err != nil {
		return nil, err
	}
	return newWorker(o, workerState{pod: c.Pod, gone: true, containers: containers, started: c.Started}), nil
}

// resume goes on with adopted containers: it waits for their end and probes them. Earlier attempts are deleted.
func (w *Worker) resume() {
	current := map[string]bool{}
	for _, u := range w.order {
		if u.Current != nil {
			current[u.Current.ID] = true
		}
	}
	for _, info := range w.adopted {
		if !current[info.ID] && !w.deleted() {
			w.ops.Go(func() { w.deleteAttempt(w.ctx, info.ID) })
		}
	}
	for _, u := range w.order {
		if !u.IsRunning() {
			continue
		}
		spec, id, log := u.spec, u.Current.ID, u.logPath
		w.ops.Go(func() { w.await(u, spec, id, log) })
		if !w.deleted() {
			w.afterStart(u)
		}
	}
}
