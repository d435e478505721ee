package pod

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
)

// event records an event of the pod.
func (w *Worker) event(kind, reason, message string) {
	w.o.Events.Event(w.reference(""), kind, reason, message)
}

// containerEvent records an event of one container; the reference names it as kubelet's does.
func (w *Worker) containerEvent(u *unit, kind, reason, message string) {
	list := "containers"
	switch u.role {
	case roleInit, roleSidecar:
		list = "initContainers"
	case roleEphemeral:
		list = "ephemeralContainers"
	}
	w.o.Events.Event(w.reference(fmt.Sprintf("spec.%s{%s}", list, u.name)), kind, reason, message)
}

func (w *Worker) reference(path string) *v1.ObjectReference {
	pod := w.writer.identity()
	return &v1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion, FieldPath: path,
	}
}
