package pod

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/downward"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/sandbox"
	"github.com/weft-dev/weft/node/status"
	"github.com/weft-dev/weft/node/volume"
)

// The labels of containers, by which an agent recognises them after a restart.
const (
	LabelNamespace = "io.kubernetes.pod.namespace"
	LabelPod       = "io.kubernetes.pod.name"
	LabelUID       = "io.kubernetes.pod.uid"
	LabelContainer = "io.kubernetes.container.name"
	LabelAttempt   = "weft.dev/attempt"
	LabelImage     = "weft.dev/image"
	LabelImageID   = "weft.dev/image-id"
	LabelSignal    = "weft.dev/stop-signal"
)

// The pauses after a start that failed before anything ran. The first is short: the usual cause is an object that was applied a
// moment after its pod.
const (
	startRetryMin = time.Second
	startRetryMax = 10 * time.Second
)

// attempt is one start of a container with what the operation needs; it shares nothing with the worker.
type attempt struct {
	pod    *v1.Pod
	unit   *unit // only name and role are read outside of the worker's goroutine
	spec   *v1.Container
	number int32
	id     string
	log    string

	sandbox *sandbox.Sandbox // nil on the machine's own network
	source  downward.Source
	volumes *volume.Set
}

// startUnit begins to start a container, or shows that its pull has to wait.
func (w *Worker) startUnit(u *unit, now time.Time) {
	if end, wait := u.pull.until(u.pullFailed, now); wait && u.pullError != "" {
		w.backOffPull(u, end)
		return
	}
	if exited := u.Exited(); exited != nil {
		u.crash.next(exited.FinishedAt, now)
	}
	a := attempt{
		pod: w.pod, unit: u, spec: u.spec, number: w.nextAttempt(u), id: newID(),
		sandbox: w.setup.sandbox, source: w.source(), volumes: w.setup.volumes,
	}
	a.log = filepath.Join(w.logDir(w.pod), u.spec.Name, strconv.Itoa(int(a.number))+".log")
	u.op, u.stop = opStarting, nil
	ctx := w.starting
	previous := u.Current
	w.ops.Go(func() { w.run(ctx, a, previous) })
}

// backOffPull shows that the next pull waits. The event is recorded once per pause.
func (w *Worker) backOffPull(u *unit, end time.Time) {
	u.retryAt = end
	message := fmt.Sprintf("Back-off pulling image %q", u.spec.Image)
	w.containerEvent(u, v1.EventTypeNormal, "BackOff", message)
	w.containerEvent(u, v1.EventTypeWarning, "Failed", "Error: "+status.ImagePullBackOff)
	u.Waiting = &v1.ContainerStateWaiting{Reason: status.ImagePullBackOff, Message: message + ": " + u.pullError}
}

func (w *Worker) nextAttempt(u *unit) int32 {
	if u.Current == nil {
		return u.Restarts
	}
	return u.Restarts + 1
}

// run starts a container and stays with it until it has ended, so that there is one goroutine per running container.
func (w *Worker) run(ctx context.Context, a attempt, previous *status.Attempt) {
	img, failed := w.getImage(ctx, a)
	if failed != nil {
		w.mail.put(func() { w.startFailed(a.unit, failed) })
		return
	}
	w.trace.mark("image")
	spec, failed := w.makeSpec(ctx, a, img)
	if failed != nil {
		w.containerEvent(a.unit, v1.EventTypeWarning, "Failed", "Error: "+failed.message)
		w.mail.put(func() { w.startFailed(a.unit, failed) })
		return
	}
	w.trace.mark("spec")
	if previous != nil {
		w.deleteAttempt(ctx, previous.ID) // its log stays
	}
	s, err := w.o.Runtime.Start(ctx, spec)
	if err != nil {
		w.runFailed(ctx, a, img, err)
		return
	}
	w.trace.mark("running")
	w.mail.put(func() { w.running(a, img, s) })
	w.containerEvent(a.unit, v1.EventTypeNormal, "Created", "Container created")
	w.containerEvent(a.unit, v1.EventTypeNormal, "Started", "Container started")
	w.await(a.unit, a.spec, a.id, a.log)
}

// deleteAttempt deletes an attempt that has ended, now or with the pod.
func (w *Worker) deleteAttempt(ctx context.Context, id string) {
	if err := w.o.Runtime.Delete(ctx, id); err != nil && !isGone(err) {
		w.mail.put(func() { w.stale = append(w.stale, id) })
	}
}

// runFailed reports a container that the runtime did not start.
func (w *Worker) runFailed(ctx context.Context, a attempt, img image.Image, err error) {
	if ctx.Err() != nil {
		w.mail.put(func() { w.startFailed(a.unit, &startError{reason: status.ContainerCreating}) })
		return
	}
	w.log.Info("A container did not start", "container", a.unit.name, "err", err)
	var refused *container.StartError
	if !errors.As(err, &refused) {
		w.containerEvent(a.unit, v1.EventTypeWarning, "Failed", "Error: "+err.Error())
		w.mail.put(func() {
			w.startFailed(a.unit, &startError{reason: status.CreateContainerError, message: err.Error()})
		})
		return
	}
	w.containerEvent(a.unit, v1.EventTypeNormal, "Created", "Container created")
	w.containerEvent(a.unit, v1.EventTypeWarning, "Failed", "Error: "+refused.Error())
	w.mail.put(func() {
		now := time.Now()
		w.newAttempt(a, img, &status.Attempt{
			ID: a.id, FinishedAt: now, StartedAt: now, ExitCode: refused.ExitCode, Reason: status.ReasonStartError, Message: refused.Error(),
		})
		a.unit.Waiting = &v1.ContainerStateWaiting{Reason: status.RunContainerError, Message: refused.Error()}
	})
}

// startFailed notes a start that failed before anything ran. It runs on the worker's goroutine.
func (w *Worker) startFailed(u *unit, err *startError) {
	u.op = opNone
	if err.reason == status.ContainerCreating {
		return // cancelled, because the pod is to stop
	}
	now := time.Now()
	u.Waiting = &v1.ContainerStateWaiting{Reason: err.reason, Message: err.message}
	if err.pull {
		u.pull.next(now, now)
		u.pullFailed, u.pullError = now, err.reason+": "+err.message
		// The failure itself is shown for a moment before it becomes a back-off.
		u.retryAt = now.Add(min(startRetryMin, u.pull.delay/10))
		return
	}
	u.retryAt = now.Add(min(startRetryMin<<min(u.retries, 8), startRetryMax, w.o.BackoffBase))
	u.retries++
}

// newAttempt makes an attempt the current one.
func (w *Worker) newAttempt(a attempt, img image.Image, current *status.Attempt) {
	u := a.unit
	if u.Current != nil {
		u.Previous = u.Current.Terminated()
	}
	u.Current, u.Restarts, u.Image, u.ImageID, u.logPath = current, a.number, img.Name, imageID(img), a.log
	u.op, u.Waiting, u.Started, u.Ready, u.retries, u.pullError = opNone, nil, false, false, 0, ""
	u.stopSignal = stopSignal(a.spec, img)
}

// imageID is the digest by which the registry knows the image, or for images that never were in one that of their configuration.
func imageID(img image.Image) string {
	if img.RepoDigest != "" {
		return img.RepoDigest
	}
	return img.ID
}

// running notes that a container runs and begins to probe it. It runs on the worker's goroutine.
func (w *Worker) running(a attempt, img image.Image, s container.Status) {
	w.newAttempt(a, img, &status.Attempt{ID: a.id, Running: true, StartedAt: s.StartedAt})
	w.removeOldLogs(a)
	if a.unit.spec.Lifecycle != nil && a.unit.spec.Lifecycle.PostStart != nil {
		w.postStart(a.unit, a.id)
		return
	}
	w.afterStart(a.unit)
}

// removeOldLogs keeps the logs of the newest attempt and of the one before.
func (w *Worker) removeOldLogs(a attempt) {
	if a.number < 2 {
		return
	}
	dir := filepath.Dir(a.log)
	w.ops.Go(func() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return // nothing to remove
		}
		for _, e := range entries {
			number, _, _ := strings.Cut(e.Name(), ".")
			if n, err := strconv.Atoi(number); err == nil && int32(n) < a.number-1 { //nolint:gosec // a small number
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	})
}

// logDir is the directory of a pod's logs, named as kubelet names it so that log collectors find it.
func (w *Worker) logDir(pod *v1.Pod) string { return LogDir(w.o.LogRoot, pod) }

// LogDir is the directory of the logs of a pod below root.
func LogDir(root string, pod *v1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
