package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/node/status"
)

// The pauses between writes of a status that failed.
const (
	writeRetryMin = 50 * time.Millisecond
	writeRetryMax = 5 * time.Second
)

// writer writes the status of a pod. It keeps only the newest, and it holds back the first one for a moment: most pods become
// ready within it, and then one write tells everything.
type writer struct {
	o   Options
	log *slog.Logger
	id  types.NamespacedName
	uid types.UID
	// wake tells run that something changed.
	wake chan struct{}

	// mu guards everything below.
	mu sync.Mutex
	// pod is the newest version of the object.
	pod *v1.Pod
	// pending is the status to write, written the one that the API has.
	pending, written *v1.PodStatus
	// notBefore holds back pending.
	notBefore time.Time
	// flushed is closed when nothing is pending.
	flushed chan struct{}
	stopped bool
}

func newWriter(o Options, pod *v1.Pod, log *slog.Logger) *writer {
	w := &writer{
		o: o, log: log, pod: pod, wake: make(chan struct{}, 1),
		id: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID,
	}
	if len(pod.Status.ContainerStatuses) > 0 {
		w.written = &pod.Status // an earlier process wrote it
	}
	return w
}

// identity is the newest version of the pod.
func (w *writer) identity() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

func (w *writer) observe(pod *v1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pod = pod
}

// stop ends writing: the pod is gone.
func (w *writer) stop() {
	w.mu.Lock()
	w.stopped = true
	w.settle()
	w.mu.Unlock()
	w.notify()
}

// set replaces the status to write. urgent says that nothing is to be held back.
func (w *writer) set(s v1.PodStatus, urgent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.pending == nil && w.written != nil && equality.Semantic.DeepEqual(*w.written, s) {
		return
	}
	if w.pending != nil && equality.Semantic.DeepEqual(*w.pending, s) && !urgent {
		return
	}
	if w.pending == nil && w.written == nil {
		w.notBefore = time.Now().Add(w.o.StatusDelay)
	}
	if urgent || !dull(&s) {
		w.notBefore = time.Time{}
	}
	w.pending = &s
	if w.flushed == nil {
		w.flushed = make(chan struct{})
	}
	w.notify()
}

// dull reports whether a status only says that a pod is on its way.
func dull(s *v1.PodStatus) bool {
	if isReady(s) || status.Terminal(s.Phase) {
		return false
	}
	for _, list := range [][]v1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for _, c := range list {
			waiting := c.State.Waiting
			if c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
				return false
			}
			if waiting != nil && waiting.Reason != status.ContainerCreating && waiting.Reason != status.PodInitializing {
				return false
			}
		}
	}
	return true
}

func (w *writer) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// flush waits until everything is written, or the pod is gone, or ctx ends.
func (w *writer) flush(ctx context.Context) {
	w.mu.Lock()
	flushed := w.flushed
	w.mu.Unlock()
	if flushed == nil {
		return
	}
	select {
	case <-flushed:
	case <-ctx.Done():
	}
}

// settle tells waiters that nothing is pending. It wants w.mu held.
func (w *writer) settle() {
	w.pending = nil
	if w.flushed != nil {
		close(w.flushed)
		w.flushed = nil
	}
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	pause := writeRetryMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.mu.Lock()
		s, wait := w.pending, time.Until(w.notBefore)
		w.mu.Unlock()
		switch {
		case s == nil:
			timer.Stop()
		case wait > 0:
			timer.Reset(wait)
		default:
			timer.Stop()
			if err := w.write(ctx, s); err != nil && ctx.Err() == nil {
				w.log.Warn("Writing the status of a pod failed", "err", err)
				w.hold(pause)
				pause = min(2*pause, writeRetryMax)
			} else {
				pause = writeRetryMin
			}
			if ctx.Err() == nil {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
	}
}

func (w *writer) hold(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notBefore = time.Now().Add(d)
}

func (w *writer) write(ctx context.Context, s *v1.PodStatus) error {
	patch, err := statusPatch(w.uid, s)
	if err != nil {
		return err
	}
	_, err = w.o.Client.CoreV1().Pods(w.id.Namespace).Patch(
		ctx, w.id.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		// Gone, or another pod of the same name; the watch tells soon.
		w.settle()
		return nil
	case err != nil:
		return fmt.Errorf("patching the status: %w", err)
	}
	w.written = s
	if w.pending == s {
		w.settle()
	}
	return nil
}

// statusPatch is a strategic merge patch that sets all of a status and can be repeated. The uid makes it fail for a pod that
// was deleted and created again. Empty fields of conditions are set to null, since a merge would keep their old values, and the
// conditions of others are left out, since theirs may be newer.
func statusPatch(uid types.UID, s *v1.PodStatus) ([]byte, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding the status: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("decoding the status: %w", err)
	}
	for _, name := range []string{"reason", "message"} {
		if _, ok := fields[name]; !ok {
			fields[name] = nil
		}
	}
	conditions, _ := fields["conditions"].([]any)
	var mine []any
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		if t, _ := condition["type"].(string); !status.Owned(v1.PodConditionType(t)) {
			continue
		}
		mine = append(mine, condition)
		for _, name := range []string{"reason", "message"} {
			if _, ok := condition[name]; !ok {
				condition[name] = nil
			}
		}
	}
	fields["conditions"] = mine
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": fields})
	if err != nil {
		return nil, fmt.Errorf("encoding the patch: %w", err)
	}
	return patch, nil
}
