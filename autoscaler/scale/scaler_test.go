package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/autoscaling"

	"github.com/weft-dev/weft/autoscaler/kpa"
	"github.com/weft-dev/weft/autoscaler/settings"
	"github.com/weft-dev/weft/mesh/telemetry"
)

var hello = types.NamespacedName{Namespace: "default", Name: "hello-00001"}

// world is a Scaler with an API server that is played by the test.
type world struct {
	t      *testing.T
	scaler *Scaler

	mu sync.Mutex
	// patches are the scales that were asked for, with the time since the start.
	patches []patchCall
	// slow is how long a patch takes; fail is what it answers.
	slow time.Duration
	fail error
	// version counts changes of the Deployment.
	version  int
	replicas int32
	observed time.Duration
	changed  int
	start    time.Time
	settings settings.Settings
}

type patchCall struct {
	At       time.Duration
	Replicas int32
}

func newWorld(t *testing.T, change ...func(*settings.Settings)) *world {
	t.Helper()
	w := &world{t: t, replicas: 1, observed: time.Hour, start: time.Now(), settings: settings.Settings{
		Metric: autoscaling.Concurrency, Target: 10, Total: 100, StableWindow: time.Minute, PanicWindow: 6 * time.Second, PanicThreshold: 2,
		MaxScaleUpRate: 1000, MaxScaleDownRate: 2, InitialScale: 1, ScaleToZero: true, ProgressDeadline: 10 * time.Minute,
	}}
	for _, f := range change {
		f(&w.settings)
	}
	w.scaler = New(Options{
		Patcher: w, Observed: func(time.Time) time.Duration { w.mu.Lock(); defer w.mu.Unlock(); return w.observed },
		Changed: func(types.NamespacedName) { w.mu.Lock(); defer w.mu.Unlock(); w.changed++ },
		Logger:  slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.scaler.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func (w *world) Scale(ctx context.Context, target Target, replicas int32) (string, error) {
	w.mu.Lock()
	slow, fail := w.slow, w.fail
	w.patches = append(w.patches, patchCall{At: time.Since(w.start), Replicas: replicas})
	w.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if fail != nil {
		return "", fail
	}
	if target != (Target{Namespace: hello.Namespace, Name: hello.Name + "-deployment"}) {
		return "", fmt.Errorf("unexpected target %v", target)
	}
	w.replicas = replicas
	w.version++
	return fmt.Sprint(100 + w.version), nil
}

// observe plays the controller: it tells the Scaler the Deployment's scale and the ready instances.
func (w *world) observe(ready int32, change ...func(*Observation)) (Status, []Event) {
	w.mu.Lock()
	o := Observation{
		Object: &corev1.ObjectReference{}, Target: Target{Namespace: hello.Namespace, Name: hello.Name + "-deployment"},
		Replicas: w.replicas, Version: fmt.Sprint(100 + w.version), Ready: ready, Settings: w.settings, Since: time.Now(),
	}
	w.mu.Unlock()
	for _, f := range change {
		f(&o)
	}
	return w.scaler.Observe(hello, o)
}

func atZero(o *Observation) { o.Phase, o.Initialized = kpa.Inactive, true }

// report plays a proxy that had this many requests for an interval, of which some are parked.
func (w *world) report(interval time.Duration, requests, parked uint32, wake bool) {
	w.scaler.Report(&telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{
		Namespace: hello.Namespace, Revision: hello.Name, AverageConcurrency: float64(requests), InFlight: requests - parked, Parked: parked,
		IntervalMs: uint32(interval / time.Millisecond), Wake: wake, Requests: uint64(requests),
	}}}, time.Now())
}

// load reports each second for a time.
func (w *world) load(seconds int, requests uint32) {
	for range seconds {
		pass(time.Second)
		w.report(time.Second, requests, 0, false)
	}
}

// pass lets time of the test's bubble go by.
func pass(d time.Duration) { <-time.After(d) }

// instances is what the Deployment asks for, once everything has come to rest.
func (w *world) instances() int32 {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replicas
}

func (w *world) takePatches() []patchCall {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.patches
	w.patches = nil
	return got
}

func (w *world) wantPatches(want ...patchCall) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.takePatches()); diff != "" {
		w.t.Errorf("patches (-want +got):\n%s", diff)
	}
}

func TestWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.replicas, w.slow = 0, 5*time.Millisecond
		w.observe(0, atZero)
		pass(3 * time.Second)
		w.wantPatches()

		// The patch is on its way at the time of the report; more wakes meanwhile and after do nothing.
		w.report(0, 1, 1, true)
		w.report(0, 2, 2, true)
		w.wantPatches(patchCall{At: 3 * time.Second, Replicas: 1})
		pass(5 * time.Millisecond)
		w.report(5*time.Millisecond, 3, 3, true)
		w.wantPatches()

		status, events := w.observe(0)
		if status.Phase != kpa.Activating || status.Want != 1 {
			t.Errorf("status after the wake: %+v", status)
		}
		want := []Event{{Up: true, Note: "Scaled from 0 to 1: 1 request is waiting and no instance runs"}}
		if diff := cmp.Diff(want, events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		status, _ = w.observe(1)
		if status.Phase != kpa.Active {
			t.Errorf("status with a ready instance: %+v", status)
		}

		wakes := w.scaler.WakeLog()
		at := w.start.Add(3 * time.Second)
		wantWakes := []Wake{{
			Namespace: hello.Namespace, Revision: hello.Name, To: 1, Received: at, Decided: at, Sent: at, Answered: at.Add(5 * time.Millisecond),
		}}
		if diff := cmp.Diff(wantWakes, wakes); diff != "" {
			t.Errorf("wake log (-want +got):\n%s", diff)
		}
	})
}

func TestStaleCacheDoesNotUndoAWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.replicas = 0
		w.observe(0, atZero)
		w.report(time.Millisecond, 1, 1, true)
		w.wantPatches(patchCall{Replicas: 1})
		// The cache still shows the Deployment as it was.
		w.observe(0, func(o *Observation) { o.Replicas, o.Version = 0, "100" })
		w.wantPatches()
	})
}

func TestWakeOfUnknownRevision(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.replicas = 0
		w.report(0, 1, 1, true)
		pass(time.Second)
		w.report(time.Second, 1, 1, false)
		w.wantPatches()
		w.observe(0, atZero)
		w.wantPatches(patchCall{At: time.Second, Replicas: 1})
	})
}

func TestWakeWhileScalingDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observe(1)
		w.load(5, 1)
		w.mu.Lock()
		w.slow = 50 * time.Millisecond
		w.mu.Unlock()
		// A minute after the last load the patch to zero is on its way; a request comes before it is answered, and its instance
		// is still seen as ready.
		var down []patchCall
		for waited := time.Duration(0); len(down) == 0 && waited < 2*time.Minute; waited += 10 * time.Millisecond {
			pass(10 * time.Millisecond)
			down = w.takePatches()
		}
		if len(down) != 1 || down[0].Replicas != 0 {
			t.Fatalf("patches to zero: %v", down)
		}
		w.report(0, 1, 1, true)
		w.wantPatches()
		pass(50 * time.Millisecond)
		up := w.takePatches()
		if len(up) != 1 || up[0].Replicas != 1 {
			t.Errorf("patches after the wake: %v", up)
		}
	})
}

func TestScaleToZero(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		retention time.Duration
		// from and to bound the time from the last request to the patch.
		from, to time.Duration
		note     string
	}{
		{name: "after the window", from: time.Minute, to: 63 * time.Second, note: "Scaled from 1 to 0: no request for 60s"},
		{
			name: "after window and retention", retention: 20 * time.Second, from: 80 * time.Second, to: 83 * time.Second,
			note: "Scaled from 1 to 0: no request for 60s and the last instance was kept for another 20s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *settings.Settings) { c.Retention = tt.retention })
				w.observe(1)
				w.load(10, 2)
				last := time.Since(w.start)
				pass(5 * time.Minute)
				got := w.takePatches()
				if len(got) != 1 || got[0].Replicas != 0 {
					t.Fatalf("patches: %v", got)
				}
				if after := got[0].At - last; after < tt.from || after > tt.to {
					t.Errorf("to zero after %v, want %v to %v", after, tt.from, tt.to)
				}
				status, events := w.observe(0)
				if status.Phase != kpa.Inactive || status.Want != 0 {
					t.Errorf("status: %+v", status)
				}
				if diff := cmp.Diff([]Event{{Note: tt.note}}, events); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNewRevisionWithoutLoadGoesToZero(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observe(0)
		pass(2 * time.Second)
		w.observe(1)
		pass(2 * time.Minute)
		w.wantPatches(patchCall{At: 62 * time.Second, Replicas: 0})
	})
}

func TestNewRevisionThatNeverStarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observe(0)
		pass(time.Hour)
		w.wantPatches(patchCall{At: 10*time.Minute + 30*time.Second + time.Millisecond, Replicas: 0})
		status, events := w.observe(0)
		if !status.TimedOut || status.Phase != kpa.Inactive {
			t.Errorf("status: %+v", status)
		}
		if diff := cmp.Diff([]Event{{Note: "Scaled from 1 to 0: no instance became ready within 10m30s"}}, events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestFollowsLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observe(1)
		w.load(4, 35)
		w.observe(4)
		if w.instances() != 4 {
			t.Errorf("35 requests at 10 each: %d instances", w.replicas)
		}
		// In panic nothing goes down; a window later it does, by half.
		w.load(50, 5)
		if w.instances() != 4 {
			t.Errorf("in panic: %d instances", w.replicas)
		}
		w.load(80, 5)
		if w.instances() != 2 {
			t.Errorf("after the panic: %d instances", w.replicas)
		}
		w.observe(2)
		w.load(4, 5)
		if w.instances() != 1 {
			t.Errorf("a step later: %d instances", w.replicas)
		}
	})
}

func TestFollowsRequestsPerSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *settings.Settings) { c.Metric = autoscaling.RPS })
		w.observe(1)
		for range 4 {
			pass(time.Second)
			w.scaler.Report(&telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{
				Namespace: hello.Namespace, Revision: hello.Name, AverageConcurrency: 0.1, Requests: 45, IntervalMs: 1000,
			}}}, time.Now())
		}
		synctest.Wait()
		if w.instances() != 5 {
			t.Errorf("45 requests per second at 10 each: %d instances", w.replicas)
		}
	})
}

func TestNothingGoesDownWhileNobodyReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observed, w.replicas = 0, 3
		w.observe(3, func(o *Observation) { o.Phase, o.Initialized, o.Since = kpa.Active, true, time.Now().Add(-time.Hour) })
		pass(time.Hour)
		w.wantPatches()
		w.mu.Lock()
		w.observed = 24 * time.Hour
		w.mu.Unlock()
		pass(2 * time.Minute)
		if got := w.takePatches(); len(got) == 0 {
			t.Error("nothing goes down after a proxy has come")
		}
	})
}

func TestNoTimerAtIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.replicas = 0
		w.observe(0, atZero)
		w.report(time.Second, 1, 1, true)
		w.observe(1)
		pass(3 * time.Minute)
		w.observe(0)
		r := w.scaler.find(hello, true)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.timer != nil || r.load != nil || r.now != nil {
			t.Errorf("at zero, timer %v, load %v, present %v are left", r.timer, r.load, r.now)
		}
	})
}

func TestPatchIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.replicas, w.fail = 0, errors.New("connection refused")
		w.observe(0, atZero)
		w.report(0, 1, 1, true)
		pass(100 * time.Millisecond)
		if got := w.takePatches(); len(got) != 3 {
			t.Errorf("attempts in 100 ms: %v", got)
		}
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		pass(100 * time.Millisecond)
		if got := w.takePatches(); len(got) != 1 || w.instances() != 1 {
			t.Errorf("after the API server is back: %v, %d instances", got, w.replicas)
		}
	})
}

func TestMissingDeploymentIsAwaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fail = apierrors.NewNotFound(schema.GroupResource{Resource: "deployments"}, "hello")
		missing := func(o *Observation) { o.Replicas, o.Version = kpa.Unknown, "" }
		w.observe(0, missing)
		pass(time.Minute)
		w.wantPatches()
		// A request that waits is worth an attempt.
		w.report(0, 1, 1, true)
		if got := w.takePatches(); len(got) != 1 {
			t.Errorf("attempts: %v", got)
		}
		w.mu.Lock()
		w.fail, w.replicas = nil, 0
		w.mu.Unlock()
		pass(30 * time.Millisecond)
		w.report(30*time.Millisecond, 1, 1, false)
		w.observe(0)
		synctest.Wait()
		if w.instances() != 1 {
			t.Errorf("after the Deployment is there: %d", w.replicas)
		}
	})
}

func TestManualScaleIsCorrected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *settings.Settings) { c.MinScale = 2 })
		w.replicas = 2
		w.observe(2)
		pass(2 * time.Minute)
		w.mu.Lock()
		w.replicas, w.version = 5, w.version+1
		w.mu.Unlock()
		w.observe(2)
		w.wantPatches(patchCall{At: 2 * time.Minute, Replicas: 2})
	})
}

func TestMinScaleIsLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observe(1)
		w.settings.MinScale = 3
		w.observe(1)
		w.wantPatches(patchCall{Replicas: 3})
		_, events := w.observe(1)
		if diff := cmp.Diff([]Event{{Up: true, Note: "Scaled from 1 to 3: min-scale is 3"}}, events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		// It is kept although it is less than active.
		pass(time.Hour)
		w.wantPatches()
	})
}

func TestForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.observe(1)
		w.load(2, 1)
		w.scaler.Forget(hello)
		pass(time.Hour)
		w.wantPatches()
		if len(w.scaler.revisions) != 0 {
			t.Errorf("left: %v", w.scaler.revisions)
		}
	})
}

func TestUnknownRevisionsAreBoundedAndForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range maxUnknown + 10 {
			w.scaler.Report(&telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{
				Namespace: "default", Revision: fmt.Sprint(i), AverageConcurrency: 1, InFlight: 1, IntervalMs: 1000, Wake: true,
			}}}, time.Now())
		}
		if n := len(w.scaler.revisions); n != maxUnknown {
			t.Errorf("%d unknown revisions are kept, want %d", n, maxUnknown)
		}
		pass(3 * time.Minute)
		synctest.Wait()
		if n := len(w.scaler.revisions); n != 0 || w.scaler.unknown != 0 {
			t.Errorf("%d unknown revisions are left, counted %d", n, w.scaler.unknown)
		}
	})
}

func TestGoneProxyNoLongerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.report(0, 3, 3, true)
		w.scaler.Gone("p")
		w.replicas = 0
		w.observe(0, atZero)
		w.wantPatches()
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		metrics := NewMetrics(w.scaler)
		w.replicas = 0
		w.observe(0, atZero)
		w.report(0, 1, 1, true)
		synctest.Wait()
		w.observe(1)
		want := `
# HELP weft_autoscaler_active 1 while a revision has the instances that it needs, else 0.
# TYPE weft_autoscaler_active gauge
weft_autoscaler_active{namespace="default",revision="hello-00001"} 1
# HELP weft_autoscaler_desired_instances Instances that a revision should have.
# TYPE weft_autoscaler_desired_instances gauge
weft_autoscaler_desired_instances{namespace="default",revision="hello-00001"} 1
# HELP weft_autoscaler_patch_failures_total Patches of a scale that the API server did not make.
# TYPE weft_autoscaler_patch_failures_total counter
weft_autoscaler_patch_failures_total 0
# HELP weft_autoscaler_ready_instances Instances of a revision that can serve.
# TYPE weft_autoscaler_ready_instances gauge
weft_autoscaler_ready_instances{namespace="default",revision="hello-00001"} 1
# HELP weft_autoscaler_wakes_total Starts from zero that a waiting request has caused.
# TYPE weft_autoscaler_wakes_total counter
weft_autoscaler_wakes_total 1
`
		err := testutil.CollectAndCompare(metrics, strings.NewReader(want), "weft_autoscaler_active", "weft_autoscaler_desired_instances",
			"weft_autoscaler_patch_failures_total", "weft_autoscaler_ready_instances", "weft_autoscaler_wakes_total")
		if err != nil {
			t.Error(err)
		}
		if n := testutil.CollectAndCount(metrics, "weft_autoscaler_wake_seconds"); n != 1 {
			t.Errorf("%d histograms of wakes", n)
		}
		if problems, err := testutil.CollectAndLint(metrics); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
	})
}

// BenchmarkWake is the time from a report to the patch being handed to the client, which is all that the autoscaler adds to a start.
func BenchmarkWake(b *testing.B) {
	sent := make(chan struct{})
	s := New(Options{
		Patcher: patcherFunc(func() { sent <- struct{}{} }), Observed: func(time.Time) time.Duration { return time.Hour },
		Changed: func(types.NamespacedName) {}, Logger: slog.New(slog.DiscardHandler),
	})
	o := Observation{Phase: kpa.Inactive, Initialized: true, Version: "1", Settings: settings.Settings{
		Metric: autoscaling.Concurrency, Target: 10, StableWindow: time.Minute, PanicWindow: 6 * time.Second, PanicThreshold: 2,
		MaxScaleUpRate: 1000, MaxScaleDownRate: 2, InitialScale: 1, ScaleToZero: true,
	}}
	report := &telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{
		Namespace: hello.Namespace, Revision: hello.Name, AverageConcurrency: 1, Parked: 1, IntervalMs: 1, Wake: true,
	}}}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s.Forget(hello)
		s.Observe(hello, o)
		b.StartTimer()
		s.Report(report, time.Now())
		<-sent
	}
}

// patcherFunc is a Patcher that tells that it was asked.
type patcherFunc func()

func (f patcherFunc) Scale(context.Context, Target, int32) (string, error) { f(); return "2", nil }

func TestWakeLogKeepsTheLast(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for i := range wakesKept + 10 {
		s.wakes.add(Wake{To: int32(i)})
	}
	got := s.WakeLog()
	if len(got) != wakesKept || got[0].To != 10 || got[wakesKept-1].To != wakesKept+9 {
		t.Errorf("%d wakes from %d to %d", len(got), got[0].To, got[len(got)-1].To)
	}
}

// TestScaleDownDelay holds on to what load has once needed, for as long as is asked for and not longer.
func TestScaleDownDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *settings.Settings) {
			c.StableWindow, c.PanicWindow, c.ScaleDownDelay = 6*time.Second, time.Second, 30*time.Second
		})
		w.observe(1)
		w.load(10, 35)
		w.observe(4)
		last := time.Since(w.start)
		w.takePatches()
		// One request at a time would need one instance.
		w.load(25, 1)
		w.observe(4)
		w.wantPatches()
		w.load(15, 1)
		got := w.takePatches()
		if len(got) == 0 || got[0].Replicas >= 4 {
			t.Fatalf("after the delay: %v", got)
		}
		// The window still shows the load for a moment after its end.
		if after := got[0].At - last; after < 30*time.Second || after > 40*time.Second {
			t.Errorf("goes down after %v, want 30s to 40s", after)
		}
	})
}

// TestNoZero is a cluster that forbids zero, and then permits it.
func TestNoZero(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *settings.Settings) { c.ScaleToZero = false })
		w.observe(1)
		w.load(3, 1)
		pass(time.Hour)
		w.wantPatches()
		w.settings.ScaleToZero = true
		w.observe(1)
		pass(2 * time.Second)
		if got := w.takePatches(); len(got) != 1 || got[0].Replicas != 0 {
			t.Errorf("after zero is permitted: %v", got)
		}
	})
}

// TestUnreachableLosesItsLeast is an old revision after traffic has moved on.
func TestUnreachableLosesItsLeast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *settings.Settings) { c.MinScale = 3 })
		w.replicas = 3
		w.observe(3)
		pass(5 * time.Minute)
		w.wantPatches()
		w.settings.MinScale, w.settings.Unreachable = 0, true
		w.observe(3)
		pass(5 * time.Second)
		got := w.takePatches()
		if len(got) != 1 || got[0].Replicas != 0 {
			t.Errorf("after traffic has moved: %v", got)
		}
		_, events := w.observe(0)
		if len(events) != 1 || !strings.Contains(events[0].Note, "no route leads to the revision") {
			t.Errorf("events %v", events)
		}
	})
}

// TestRates bounds the steps of one decision.
func TestRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *settings.Settings) { c.MaxScaleUpRate = 2 })
		w.observe(1)
		w.load(4, 500)
		if got := w.instances(); got != 2 {
			t.Fatalf("a first step from 1: %d instances, want 2", got)
		}
		w.observe(2)
		w.load(2, 500)
		if got := w.instances(); got != 4 {
			t.Errorf("a second step: %d instances, want 4", got)
		}
	})
}

// TestWeightedAverageFollowsSooner compares the two averages after the same surge.
func TestWeightedAverageFollowsSooner(t *testing.T) {
	t.Parallel()
	reached := map[bool]int32{}
	for _, weighted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			// No panic, which would hide the difference.
			w := newWorld(t, func(c *settings.Settings) { c.Weighted, c.PanicThreshold = weighted, 1000 })
			w.observe(1)
			w.load(50, 1)
			w.load(6, 40)
			reached[weighted] = w.instances()
		})
	}
	if reached[true] <= reached[false] {
		t.Errorf("weighted %d instances, plain %d", reached[true], reached[false])
	}
}
