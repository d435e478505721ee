package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-dev/weft/node/volume"
)

// removeRetry is the pause after an attempt to remove a pod that failed.
const removeRetry = time.Second

// ending is the last part of a pod's life.
type ending struct {
	// gone says that the API no longer has the pod.
	gone bool
	// begun says that no container is started any more.
	begun bool
	// removing and done are the removal of everything that the pod had on this machine. logs says that its logs were removed too,
	// which only happens with the object.
	removing, done, logs bool
	// deleting says that the object is being deleted.
	deleting bool
	retryAt  time.Time
}

// end brings a pod that is deleted closer to its end.
func (w *Worker) end(now time.Time) time.Time {
	w.begin()
	w.stopAll()
	switch {
	case !w.idle() || w.setup.running || w.ending.removing || w.ending.deleting:
		return time.Time{}
	case now.Before(w.ending.retryAt):
		return w.ending.retryAt
	case !w.ending.done || !w.ending.logs:
		w.remove()
		return time.Time{}
	case w.ending.gone:
		w.finished = true
		return time.Time{}
	default:
		w.delete()
		return time.Time{}
	}
}

// retire stops what is left of a pod whose work is over. The object and its logs stay until somebody deletes them.
func (w *Worker) retire(now time.Time) time.Time {
	w.begin()
	w.stopAll()
	switch {
	case !w.idle() || w.setup.running || w.ending.removing || w.ending.done:
		return time.Time{}
	case now.Before(w.ending.retryAt):
		return w.ending.retryAt
	default:
		w.remove()
		return time.Time{}
	}
}

// begin makes sure that nothing is started any more.
func (w *Worker) begin() {
	if !w.ending.begun {
		w.ending.begun = true
		w.endStarting()
	}
	w.forget()
}

// remove removes containers, volumes and the sandbox. The logs go with the object.
func (w *Worker) remove() {
	w.ending.removing = true
	pod, ids := w.pod, w.containerIDs()
	withLogs := w.deleted()
	terminal := !withLogs
	volumes := w.setup.volumes
	if terminal {
		// The results have to be in the API before the containers that hold them are removed.
		w.publish()
	}
	w.ops.Go(func() {
		if terminal {
			w.writer.flush(w.ctx)
		}
		if volumes != nil {
			volumes.Close()
		}
		err := w.removeAll(w.ctx, pod, ids, withLogs)
		w.mail.put(func() {
			w.ending.removing = false
			if err != nil {
				w.log.Warn("Removing a pod failed", "err", err)
				w.ending.retryAt = time.Now().Add(removeRetry)
				return
			}
			w.setup.sandbox = nil
			w.ending.done, w.ending.logs = true, withLogs
		})
	})
}

func (w *Worker) containerIDs() []string {
	ids := slices.Clone(w.stale)
	for _, u := range w.order {
		if u.Current != nil && u.Current.ID != "" {
			ids = append(ids, u.Current.ID)
		}
	}
	for _, info := range w.adopted {
		ids = append(ids, info.ID)
	}
	return ids
}

func (w *Worker) removeAll(ctx context.Context, pod *v1.Pod, ids []string, withLogs bool) error {
	for _, id := range ids {
		if err := w.o.Runtime.Delete(ctx, id); err != nil && !isGone(err) {
			return fmt.Errorf("deleting container %q: %w", id, err)
		}
	}
	if err := w.o.Sandboxes.Release(ctx, string(pod.UID)); err != nil {
		return fmt.Errorf("releasing the sandbox: %w", err)
	}
	if err := volume.Remove(filepath.Join(w.dir, volumesDir)); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	dirs := []string{w.dir}
	if withLogs {
		dirs = append(dirs, w.logDir(pod))
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing %q: %w", dir, err)
		}
	}
	return nil
}

// delete writes the last status and deletes the object for good.
func (w *Worker) delete() {
	w.ending.deleting = true
	w.publish()
	pod := w.pod
	w.ops.Go(func() {
		w.writer.flush(w.ctx)
		err := w.o.Client.CoreV1().Pods(pod.Namespace).Delete(w.ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			err = nil // gone, or another pod of the same name
		}
		w.mail.put(func() {
			w.ending.deleting = false
			if err == nil {
				w.finished = true
				return
			}
			if !errors.Is(err, context.Canceled) {
				w.log.Warn("Deleting a pod from the API failed", "err", err)
			}
			w.ending.retryAt = time.Now().Add(removeRetry)
		})
	})
}
