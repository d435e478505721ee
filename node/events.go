package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// eventDelay is how long an event waits before it is written. A start makes three of them, and writing those at once would take
// the processor and the disk from the very start that they tell about.
const eventDelay = 500 * time.Millisecond

// events records what happens to pods.
type events struct {
	recorder    record.EventRecorder
	broadcaster record.EventBroadcaster
	sink        *lateSink
	cancel      context.CancelFunc
}

func newEvents(client kubernetes.Interface, node string) *events {
	ctx, cancel := context.WithCancel(context.Background())
	b := record.NewBroadcaster(record.WithContext(ctx))
	return &events{
		broadcaster: b, cancel: cancel,
		recorder: b.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: node}),
		sink:     &lateSink{EventSink: &typedv1.EventSinkImpl{Interface: client.CoreV1().Events("")}, done: ctx.Done()},
	}
}

func (e *events) start() { e.broadcaster.StartRecordingToSink(e.sink) }

// stop ends recording. Events that still wait are lost, as with a kubelet that ends.
func (e *events) stop() {
	e.cancel()
	e.broadcaster.Shutdown()
}

// lateSink writes events a moment after they happened. The broadcaster calls it from one goroutine.
type lateSink struct {
	record.EventSink
	done <-chan struct{}
}

func (s *lateSink) wait(e *v1.Event) {
	d := time.Until(e.LastTimestamp.Add(eventDelay))
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
	}
}

// Create waits and writes a new event.
func (s *lateSink) Create(e *v1.Event) (*v1.Event, error) {
	s.wait(e)
	return s.EventSink.Create(e) //nolint:wrapcheck // the recorder looks at the API's error
}

// Patch waits and counts an event that happened before.
func (s *lateSink) Patch(e *v1.Event, data []byte) (*v1.Event, error) {
	s.wait(e)
	return s.EventSink.Patch(e, data) //nolint:wrapcheck // the recorder looks at the API's error
}
