package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/probe"
	"github.com/weft-dev/weft/node/status"
)

// postStart runs the hook of a container that has just started. The container is not started for anybody else before it passed.
func (w *Worker) postStart(u *unit, id string) {
	ctx, hook, target := w.starting, u.spec.Lifecycle.PostStart, w.hookTarget(u, id)
	w.ops.Go(func() {
		err := runHook(ctx, hook, target)
		w.mail.put(func() {
			if !u.IsRunning() || u.Current.ID != id || w.deleted() {
				return
			}
			if err == nil {
				w.afterStart(u)
				return
			}
			w.log.Info("A postStart hook failed", "container", u.name, "err", err)
			w.containerEvent(u, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed") // no details: they may be secret
			u.Waiting = &v1.ContainerStateWaiting{Reason: status.PostStartHookError, Message: err.Error()}
			u.stop = &stopReason{message: "FailedPostStartHook"}
		})
	})
}

func (w *Worker) hookTarget(u *unit, id string) probe.Target {
	return probe.Target{
		Container: u.spec, Host: w.podIP(),
		Exec: func(ctx context.Context, command []string) (int, string, error) { return w.exec(ctx, id, command) },
	}
}

// runHook runs one lifecycle hook. An HTTP hook has passed when an answer came, whatever it says.
func runHook(ctx context.Context, h *v1.LifecycleHandler, t probe.Target) error {
	switch {
	case h.Exec != nil:
		code, output, err := t.Exec(ctx, h.Exec.Command)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("command '%v' exited with %d: %s", h.Exec.Command, code, output)
		}
		return nil
	case h.HTTPGet != nil:
		req, err := probe.Request(ctx, h.HTTPGet, t, probe.PurposeLifecycle)
		if err != nil {
			return fmt.Errorf("making the request: %w", err)
		}
		resp, err := probe.Do(req)
		if err != nil {
			return fmt.Errorf("calling the hook: %w", err)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxProbeOutput))
		return resp.Body.Close() //nolint:wrapcheck // nothing is lost
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the caller's own
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	default:
		return errors.New("invalid handler: no action")
	}
}
