package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/downward"
	"github.com/weft-dev/weft/node/sandbox"
	"github.com/weft-dev/weft/node/status"
	"github.com/weft-dev/weft/node/volume"
)

// The pauses between attempts to make the sandbox and the volumes, as kubelet's for volumes. An object that appears ends
// the pause at once.
const (
	setupRetryMin = 500 * time.Millisecond
	setupRetryMax = 2 * time.Minute
)

// volumesDir is the name of the directory of volumes in a pod's directory.
const volumesDir = "volumes"

// prepare makes what all containers share. It returns zero: the operation's end wakes the worker.
func (w *Worker) prepare(time.Time) time.Time {
	if w.setup.running {
		return time.Time{}
	}
	w.setup.running = true
	if w.setup.volumes == nil {
		w.setup.volumes = volume.New(volume.Options{
			Dir: filepath.Join(w.dir, volumesDir), Source: w.source(), Objects: w.o.Objects, Tokens: w.o.Tokens, Log: w.log,
		})
	}
	ctx, pod, volumes, retries := w.starting, w.pod, w.setup.volumes, w.setup.retries
	w.ops.Go(func() {
		box, err := w.makeShared(ctx, pod, volumes)
		w.mail.put(func() {
			if box != nil {
				w.setup.sandbox = box
			}
			w.explainSetup(err)
			if err == nil {
				w.setup.running, w.setup.done = false, true
				w.trace.mark("setup")
				if !w.deleted() {
					w.ops.Go(func() { volumes.Run(w.starting) })
				}
			}
		})
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			w.reportSetup(err)
		}
		timer := time.NewTimer(min(setupRetryMin<<min(retries, 10), setupRetryMax))
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-volumes.Changed():
		}
		w.mail.put(func() { w.setup.running, w.setup.retries = false, retries+1 })
	})
	return time.Time{}
}

// explainSetup shows in the containers that wait for a volume why it cannot be made. A kubelet says so only in events, where nobody
// looks who waits for a Service.
func (w *Worker) explainSetup(err error) {
	failed, ok := errors.AsType[*volume.Error](err)
	reason := status.ContainerCreating
	if len(w.pod.Spec.InitContainers) > 0 {
		reason = status.PodInitializing
	}
	for _, u := range w.order {
		switch {
		case u.Current != nil || u.Waiting != nil && u.Waiting.Reason != reason:
		case ok:
			u.Waiting = &v1.ContainerStateWaiting{Reason: reason, Message: failed.Error()}
		default:
			u.Waiting = nil
		}
	}
}

func (w *Worker) reportSetup(err error) {
	if failed, ok := errors.AsType[*volume.Error](err); ok {
		w.event(v1.EventTypeWarning, "FailedMount", failed.Error())
		return
	}
	w.event(v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
}

// makeShared makes the sandbox, the volumes and the checkpoint at the same time, and warms the cache of what the environment of the
// containers needs.
func (w *Worker) makeShared(ctx context.Context, pod *v1.Pod, volumes *volume.Set) (box *sandbox.Sandbox, err error) {
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the directory of the pod: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return writeCheckpoint(w.dir, pod, w.started) })
	group.Go(func() error {
		if err := volumes.Setup(ctx); err != nil {
			return err //nolint:wrapcheck // names the volume
		}
		w.trace.mark("volumes")
		return nil
	})
	group.Go(func() error {
		ip := w.o.HostIP
		if !pod.Spec.HostNetwork {
			acquired, err := w.o.Sandboxes.Acquire(ctx, string(pod.UID))
			if err != nil {
				return err //nolint:wrapcheck // the pool's words are what users see
			}
			box, ip = acquired, acquired.Address.String()
			if err := setHostname(acquired.UTSNS, hostname(pod, w.o.ClusterDomain)); err != nil {
				return err
			}
		}
		w.trace.mark("sandbox")
		return w.writeFiles(pod, ip)
	})
	for _, warm := range w.references(pod) {
		group.Go(func() error { warm(ctx); return nil })
	}
	err = group.Wait()
	return box, err //nolint:wrapcheck // wrapped where it happened
}

// references returns functions that read what the environment of the pod's containers refers to, so that starting them finds it
// in the cache. Errors are left to the start, which reports them per container.
func (w *Worker) references(pod *v1.Pod) []func(context.Context) {
	out := []func(context.Context){func(ctx context.Context) { _, _ = w.o.Objects.Services(ctx) }}
	configMap := func(name string) {
		out = append(out, func(ctx context.Context) { _, _ = w.o.Objects.ConfigMap(ctx, pod.Namespace, name) })
	}
	secret := func(name string) {
		out = append(out, func(ctx context.Context) { _, _ = w.o.Objects.Secret(ctx, pod.Namespace, name) })
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, from := range list[i].EnvFrom {
				if from.ConfigMapRef != nil {
					configMap(from.ConfigMapRef.Name)
				}
				if from.SecretRef != nil {
					secret(from.SecretRef.Name)
				}
			}
			for _, e := range list[i].Env {
				if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
					configMap(e.ValueFrom.ConfigMapKeyRef.Name)
				}
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
					secret(e.ValueFrom.SecretKeyRef.Name)
				}
			}
		}
	}
	return out
}

// source is the pod as its containers see it.
func (w *Worker) source() downward.Source {
	return downward.Source{Pod: w.pod, PodIP: w.podIP(), HostIP: w.o.HostIP, CPUs: w.o.CPUs, MemoryBytes: w.o.MemoryBytes}
}
