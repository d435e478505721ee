package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/probe"
)

// maxProbeOutput is how much of the output of a command is kept.
const maxProbeOutput = 10 << 10

// afterStart begins to probe a container that runs and whose postStart hook has passed.
func (w *Worker) afterStart(u *unit) {
	ctx, cancel := context.WithCancel(w.ctx)
	u.endProbes = cancel
	if u.spec.StartupProbe != nil && !u.Started {
		w.probe(ctx, u, probe.Startup, u.spec.StartupProbe, func(ok bool) {
			if ok {
				w.passedStartup(ctx, u)
				return
			}
			w.stopFor(u, fmt.Sprintf("Container %s failed startup probe", u.spec.Name), u.spec.StartupProbe)
		})
		return
	}
	w.passedStartup(ctx, u)
}

func (w *Worker) passedStartup(ctx context.Context, u *unit) {
	u.Started = true
	if u.spec.ReadinessProbe == nil {
		u.Ready = true
	} else {
		w.probe(ctx, u, probe.Readiness, u.spec.ReadinessProbe, func(ok bool) {
			if ok {
				w.trace.mark("probe")
			}
			u.Ready = ok
		})
	}
	if u.spec.LivenessProbe != nil {
		w.probe(ctx, u, probe.Liveness, u.spec.LivenessProbe, func(ok bool) {
			if !ok {
				w.stopFor(u, fmt.Sprintf("Container %s failed liveness probe", u.spec.Name), u.spec.LivenessProbe)
			}
		})
	}
}

func (w *Worker) stopFor(u *unit, message string, p *v1.Probe) {
	if w.deleted() || w.over {
		return
	}
	if u.role == roleSidecar || w.pod.Spec.RestartPolicy != v1.RestartPolicyNever {
		message += ", will be restarted"
	}
	u.stop = &stopReason{message: message, grace: p.TerminationGracePeriodSeconds}
}

// probe runs one probe of a container until ctx ends. report runs on the worker's goroutine, and only while the attempt is the
// current one.
func (w *Worker) probe(ctx context.Context, u *unit, kind probe.Kind, p *v1.Probe, report func(ok bool)) {
	id := u.Current.ID
	target := probe.Target{
		Container: u.spec, Host: w.podIP(),
		Exec: func(ctx context.Context, command []string) (int, string, error) { return w.exec(ctx, id, command) },
	}
	runner := probe.Runner{
		Kind: kind, Probe: p, StartedAt: u.Current.StartedAt, Ready: u.Ready && kind == probe.Readiness,
		Check: func(ctx context.Context) (probe.Result, error) { return probe.Check(ctx, p, target) },
		Report: func(ok bool, _ probe.Result) {
			w.mail.put(func() {
				if u.IsRunning() && u.Current.ID == id && ctx.Err() == nil {
					report(ok)
				}
			})
		},
		Failed: func(r probe.Result, err error) {
			switch {
			case err != nil:
				w.containerEvent(u, v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %s", kind, err))
			case r.Outcome == probe.Warning:
				w.containerEvent(u, v1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", kind, r.Message))
			default:
				w.containerEvent(u, v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, r.Message))
			}
		},
	}
	w.ops.Go(func() { runner.Run(ctx) })
}

// exec runs a command in a container and returns its exit code and output.
func (w *Worker) exec(ctx context.Context, id string, command []string) (int, string, error) {
	out := &limited{}
	code, err := w.o.Runtime.Exec(ctx, id, container.ExecOptions{Args: command, Stdout: out, Stderr: out})
	if err != nil {
		return 0, "", fmt.Errorf("running %q: %w", command, err)
	}
	return code, out.String(), nil
}

// limited keeps the first bytes of a command's output.
type limited struct {
	mu sync.Mutex // guards b, which both streams write
	b  bytes.Buffer
}

// Write never fails; what is too much is dropped.
func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxProbeOutput - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// String returns what was kept.
func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func isGone(err error) bool { return errors.Is(err, container.ErrNotFound) }
