// Package events records what users are told of objects. Controllers of serving and autoscaler make their recorders with it. It
// must not import one of them.
package events

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"
)

// Manager is the part of a controller manager that makes recorders.
type Manager interface {
	// GetEventRecorderFor returns a recorder that names source as the origin of its events.
	GetEventRecorderFor(source string) record.EventRecorder
}

// recorder lets the recorder of core/v1 be used as one of events.k8s.io.
type recorder struct {
	record.EventRecorder
}

var _ events.EventRecorder = recorder{}

// NewRecorder returns a recorder that names source as the origin of its events.
//
// It is the older of Kubernetes' two, because of how it guards against storms: it counts events that say the same, joins those of a
// reason when there are many, and limits those of one object. The newer one counts all events of a reason and an object as one
// whatever they say, so that of "Scaled from 0 to 1" and "Scaled from 1 to 7" only the first would be told.
func NewRecorder(mgr Manager, source string) events.EventRecorder {
	return recorder{mgr.GetEventRecorderFor(source)}
}

// Eventf implements events.EventRecorder. Core/v1 has no place for a related object, and none for the action.
func (r recorder) Eventf(regarding, _ runtime.Object, kind, reason, _, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, kind, reason, note, args...)
}
