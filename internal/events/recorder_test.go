package events

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
)

// manager makes recorders that write to a sink, as a controller manager does.
type manager struct {
	broadcaster record.EventBroadcaster
}

func (m manager) GetEventRecorderFor(source string) record.EventRecorder {
	return m.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: source})
}

// sink is an API server that hands on what is written.
type sink chan string

func (s sink) Create(e *corev1.Event) (*corev1.Event, error) {
	s <- "new: " + e.Message
	return e, nil
}

func (s sink) Update(e *corev1.Event) (*corev1.Event, error) { return e, nil }

func (s sink) Patch(e *corev1.Event, _ []byte) (*corev1.Event, error) {
	s <- "again: " + e.Message
	return e, nil
}

func TestEventsThatSayDifferentThingsStayApart(t *testing.T) {
	t.Parallel()
	broadcaster := record.NewBroadcaster(record.WithContext(t.Context()))
	defer broadcaster.Shutdown()
	written := make(sink, 10)
	broadcaster.StartRecordingToSink(written)

	r := NewRecorder(manager{broadcaster}, "tests")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	for _, n := range []int{1, 7, 7} {
		r.Eventf(pod, nil, corev1.EventTypeNormal, "ScaledUp", "Scale", "to %d", n)
	}
	for _, want := range []string{"new: to 1", "new: to 7", "again: to 7"} {
		select {
		case got := <-written:
			if got != want {
				t.Errorf("the API server is told %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not written", want)
		}
	}
}
