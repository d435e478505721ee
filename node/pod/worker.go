package pod

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/sandbox"
	"github.com/weft-dev/weft/node/status"
	"github.com/weft-dev/weft/node/volume"
)

// Worker runs one pod. Update, Remove and View may be called from any goroutine.
type Worker struct {
	o   Options
	log *slog.Logger
	dir string

	// mail is what other goroutines tell the worker.
	mail mailbox
	// view is what the kubelet API shows, replaced after every step.
	view atomic.Pointer[View]

	// Everything below belongs to the goroutine of Run.

	pod     *v1.Pod
	order   []*unit
	units   map[string]*unit
	started time.Time
	trace   trace
	status  v1.PodStatus
	writer  *writer
	ops     sync.WaitGroup
	// ctx lives as long as Run; starting ends earlier, when the pod is to stop.
	ctx         context.Context //nolint:containedctx // the life of Run, which all operations share
	starting    context.Context //nolint:containedctx // the life of the pod
	endStarting context.CancelFunc

	setup   setup
	adopted []container.Info
	// stale are earlier attempts that could not be deleted; they go with the pod.
	stale    []string
	over     bool
	failure  status.Failure
	ending   ending
	finished bool
}

// setup is the making of the sandbox and the volumes.
type setup struct {
	running, done bool
	retries       int
	sandbox       *sandbox.Sandbox
	volumes       *volume.Set
}

// workerState is what a worker begins with.
type workerState struct {
	// pod is the object as the API has it, or for an orphan as it was last seen.
	pod *v1.Pod
	// gone says that the API no longer has the pod.
	gone bool
	// containers are those that an earlier process of the agent left.
	containers []container.Info
	// started is when the agent first saw the pod.
	started time.Time
}

// New returns a worker for a pod that the API has. containers are those that an earlier process of the agent started for it.
func New(o Options, pod *v1.Pod, containers []container.Info) *Worker {
	return newWorker(o, workerState{pod: pod, containers: containers, started: time.Now()})
}

func newWorker(o Options, s workerState) *Worker {
	o = o.WithDefaults()
	w := &Worker{
		o: o, pod: s.pod, dir: filepath.Join(o.Root, string(s.pod.UID)), units: map[string]*unit{}, adopted: s.containers,
		started: s.started, log: o.Log.With("pod", s.pod.Namespace+"/"+s.pod.Name),
	}
	w.trace.begin = s.started
	w.mail.wake = make(chan struct{}, 1)
	w.ending.gone = s.gone
	w.writer = newWriter(o, s.pod, w.log)
	w.makeUnits()
	w.adopt()
	w.publishView()
	return w
}

// Update gives the worker a newer version of its pod.
func (w *Worker) Update(pod *v1.Pod) {
	w.mail.put(func() { w.setPod(pod) })
}

// Remove tells the worker that the API no longer has the pod. It stops and removes everything.
func (w *Worker) Remove(pod *v1.Pod) {
	w.mail.put(func() {
		if pod != nil {
			w.setPod(pod)
		}
		w.ending.gone = true
		w.writer.stop()
	})
}

func (w *Worker) setPod(pod *v1.Pod) {
	changed := pod.ResourceVersion != w.pod.ResourceVersion
	w.pod = pod
	w.makeUnits()
	w.writer.observe(pod)
	if changed && w.setup.volumes != nil && w.setup.done {
		w.setup.volumes.Update(pod)
	}
}

// Run works until the pod is gone, or until ctx ends; then the containers keep running for the next process of the agent.
// When it returns, all goroutines that it started have ended.
func (w *Worker) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.ops.Wait()
	defer cancel()
	w.ctx = ctx
	w.starting, w.endStarting = context.WithCancel(ctx)
	defer w.endStarting()
	w.ops.Go(func() { w.writer.run(ctx) })
	w.resume()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		for _, f := range w.mail.take() {
			f()
		}
		wake := w.step(time.Now())
		if w.finished {
			return
		}
		w.publish()
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(max(time.Until(wake), 0))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.mail.wake:
		case <-timer.C:
		}
	}
}

// step starts the operations that are due and returns when to look again, zero for not before something happens.
func (w *Worker) step(now time.Time) time.Time {
	switch {
	case w.deleted():
		return w.end(now)
	case w.over || status.Terminal(w.pod.Status.Phase):
		w.over = true
		return w.retire(now)
	}
	deadline := w.deadline()
	if !deadline.IsZero() && !now.Before(deadline) {
		w.over, w.failure = true, status.DeadlineExceeded()
		w.event(v1.EventTypeNormal, "DeadlineExceeded", w.failure.Message)
		return w.retire(now)
	}
	wake := w.advance(now)
	if !deadline.IsZero() && (wake.IsZero() || deadline.Before(wake)) {
		wake = deadline
	}
	return wake
}

// advance brings a living pod forward.
func (w *Worker) advance(now time.Time) time.Time {
	if !w.setup.done {
		return w.prepare(now)
	}
	p := decide(w.pod, w.order, now)
	for u, message := range p.crashed {
		w.crashed(u, message)
	}
	for _, u := range p.stop {
		w.stopUnit(u, *u.stop)
	}
	for _, u := range p.start {
		w.startUnit(u, now)
		if u.op == opNone {
			p.wakeAt(u.retryAt) // its pull has to wait
		}
	}
	if p.over {
		w.over = true
		return w.retire(now)
	}
	return p.wake
}

func (w *Worker) crashed(u *unit, message string) {
	if u.Waiting != nil && u.Waiting.Message == message {
		return
	}
	u.Waiting = &v1.ContainerStateWaiting{Reason: status.CrashLoopBackOff, Message: message}
	w.containerEvent(u, v1.EventTypeWarning, "BackOff", "Back-off restarting failed container "+u.spec.Name+" in pod "+describe(w.pod))
}

// deleted reports whether the pod has to go.
func (w *Worker) deleted() bool { return w.ending.gone || w.pod.DeletionTimestamp != nil }

// deadline is when the pod has been active for too long, or zero.
func (w *Worker) deadline() time.Time {
	if w.pod.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}
	}
	started := w.started
	if w.pod.Status.StartTime != nil {
		started = w.pod.Status.StartTime.Time
	}
	return started.Add(time.Duration(*w.pod.Spec.ActiveDeadlineSeconds) * time.Second)
}

// publish computes the status and gives it to the writer and the kubelet API.
func (w *Worker) publish() {
	w.publishView()
	if w.ending.gone {
		return
	}
	now := time.Now()
	next := status.Compute(w.statusInput(), now)
	w.trace.observe(&next, now, w.log)
	w.status = next
	w.writer.set(next, w.deleted())
}

func (w *Worker) statusInput() status.Pod {
	in := status.Pod{
		Pod: w.pod, Last: w.status, Containers: make(map[string]status.Container, len(w.order)),
		Sandbox: w.setup.sandbox != nil || w.pod.Spec.HostNetwork && w.setup.done,
		HostIP:  w.o.HostIP, PodIP: w.podIP(), StartTime: w.started, Failure: w.failure,
		Final: w.over || w.deleted(), Stopped: w.ending.done,
	}
	for _, u := range w.order {
		in.Containers[u.name] = u.Container
	}
	return in
}

func (w *Worker) podIP() string {
	switch {
	case w.pod.Spec.HostNetwork:
		return w.o.HostIP
	case w.setup.sandbox != nil:
		return w.setup.sandbox.Address.String()
	default:
		return w.pod.Status.PodIP
	}
}

// mailbox carries functions to the worker's goroutine. Putting never blocks; it is bounded by the number of operations under way
// and of changes to the pod.
type mailbox struct {
	wake chan struct{}

	// mu guards mail.
	mu   sync.Mutex
	mail []func()
}

func (m *mailbox) put(f func()) {
	m.mu.Lock()
	m.mail = append(m.mail, f)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.mail
	m.mail = nil
	return out
}
