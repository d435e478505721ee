package pod

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/status"
)

// role is the place of a container in the life of its pod.
type role string

const (
	roleInit      role = "init"
	roleSidecar   role = "sidecar"
	roleRegular   role = "regular"
	roleEphemeral role = "ephemeral"
)

// operation is what is being done with a container. A container has one at a time.
type operation string

const (
	opNone     operation = ""
	opStarting operation = "starting"
	opStopping operation = "stopping"
)

// unit is a container of a pod with all that its worker remembers about it. Only the worker's goroutine touches it, but for the
// fields that say otherwise.
type unit struct {
	status.Container
	// name and role never change, so that operations may read them.
	name string
	role role
	// spec is that of the newest version of the pod.
	spec *v1.Container
	op   operation

	// crash delays restarts, pull the next pull after one failed with pullError.
	crash, pull backoff
	pullFailed  time.Time
	pullError   string
	// retryAt delays the next attempt to start after one that never ran; retries counts those.
	retryAt time.Time
	retries int

	// stop, when not nil, says why a running container has to be stopped.
	stop *stopReason
	// stopSignal is the image's or the container's own signal for a graceful end, zero for SIGTERM.
	stopSignal int
	// logPath is the log of the newest attempt.
	logPath string
	// endProbes stops probing the running attempt.
	endProbes context.CancelFunc
}

// stopReason is why a container is stopped while its pod lives.
type stopReason struct {
	// message is that of the event.
	message string
	// grace in seconds, nil for the pod's.
	grace *int64
}

// makeUnits adds the containers of the pod in the order in which they start, and renews the specs of those that exist.
func (w *Worker) makeUnits() {
	add := func(spec *v1.Container, r role) {
		if u := w.units[spec.Name]; u != nil {
			u.spec = spec
			return
		}
		u := &unit{
			name: spec.Name, role: r, spec: spec,
			crash: backoff{base: w.o.BackoffBase, max: w.o.BackoffMax}, pull: backoff{base: w.o.BackoffBase, max: w.o.BackoffMax},
		}
		w.units[spec.Name] = u
		w.order = append(w.order, u)
	}
	for i := range w.pod.Spec.InitContainers {
		spec := &w.pod.Spec.InitContainers[i]
		if status.IsSidecar(spec) {
			add(spec, roleSidecar)
		} else {
			add(spec, roleInit)
		}
	}
	for i := range w.pod.Spec.Containers {
		add(&w.pod.Spec.Containers[i], roleRegular)
	}
	for i := range w.pod.Spec.EphemeralContainers {
		c := v1.Container(w.pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		add(&c, roleEphemeral)
	}
}

// idle reports whether nothing runs and nothing is being done.
func (w *Worker) idle() bool {
	for _, u := range w.order {
		if u.IsRunning() || u.op != opNone {
			return false
		}
	}
	return true
}
