package pod

import (
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/status"
)

// View is a pod at one moment. It does not change.
type View struct {
	Pod *v1.Pod
	// NetNS is the path of the pod's network namespace, empty before there is one.
	NetNS string
	// Containers by name, without those that were never started.
	Containers map[string]ContainerView
}

// ContainerView is a container at one moment.
type ContainerView struct {
	status.Container
	Spec *v1.Container
	// LogPath is the log of the newest attempt, empty before the first.
	LogPath string
}

// View returns the pod at this moment.
func (w *Worker) View() *View { return w.view.Load() }

func (w *Worker) publishView() {
	v := &View{
		Pod: w.pod, Containers: make(map[string]ContainerView, len(w.order)),
	}
	switch {
	case w.pod.Spec.HostNetwork:
		v.NetNS = hostNet
	case w.setup.sandbox != nil:
		v.NetNS = w.setup.sandbox.NetNS
	}
	for _, u := range w.order {
		v.Containers[u.name] = ContainerView{Container: u.Container, Spec: u.spec, LogPath: u.logPath}
	}
	w.view.Store(v)
}
