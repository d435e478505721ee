package pod

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/container/containertest"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/status"
)

func TestWorkerStartsPodWithOneStatusWrite(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	h.start()
	h.await("readiness", h.ready)

	s := h.status()
	if s.Phase != v1.PodRunning || s.PodIP != "127.0.0.1" || s.HostIP != "10.9.0.1" {
		t.Errorf("phase %s, addresses %s and %s", s.Phase, s.PodIP, s.HostIP)
	}
	if got := h.statusWrites(); got != 1 {
		t.Errorf("the status was written %d times, want once", got)
	}
	spec := h.runtime.Calls(containertest.Start)[0].Spec
	if diff := cmp.Diff([]string{"/app"}, spec.Process.Args); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if !slices.Contains(spec.Process.Env, "HOSTNAME=hello") {
		t.Errorf("environment without the host name: %q", spec.Process.Env)
	}
	want := []string{
		`Normal Pulled Container image "example.com/app:1" already present on machine and can be accessed by the pod`,
		"Normal Created Container created", "Normal Started Container started",
	}
	var got []string
	h.await("events", func() bool { got = append(got, h.recorded()...); return len(got) >= len(want) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestWorkerPullsWithBackoff(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	h.images.set(func(f *fakeImages) { f.missing, f.pullErr = true, image.ErrUnauthorized })
	h.start()
	h.await("pull back-off", func() bool { return h.waiting() == status.ImagePullBackOff })
	message := h.status().ContainerStatuses[0].State.Waiting.Message
	if want := `Back-off pulling image "example.com/app:1": ErrImagePull: registry refused access`; message != want {
		t.Errorf("message %q, want %q", message, want)
	}
	h.images.set(func(f *fakeImages) { f.pullErr = nil })
	h.await("readiness", h.ready)
	if h.images.pulled() < 2 {
		t.Errorf("pulled %d times, want more than once", h.images.pulled())
	}
}

func TestWorkerReportsImagesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, image string
		policy      v1.PullPolicy
		want        string
	}{
		{name: "never", image: "example.com/app:1", policy: v1.PullNever, want: status.ErrImageNeverPull},
		{name: "local name", image: "dev.local/app", policy: v1.PullIfNotPresent, want: status.ErrImageNeverPull},
		{name: "invalid name", image: "App!", policy: v1.PullIfNotPresent, want: status.InvalidImageName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, testPod(func(p *v1.Pod) {
				p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = tt.image, tt.policy
			}))
			h.images.set(func(f *fakeImages) { f.missing = true })
			h.start()
			h.await(tt.want, func() bool { return h.waiting() == tt.want })
			if got := h.images.pulled(); got != 0 {
				t.Errorf("pulled %d times, want never", got)
			}
		})
	}
}

func TestWorkerRestartsWithBackoff(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	h.start()
	for n := 1; n <= 3; n++ {
		calls := h.runtime.AwaitCalls(t.Context(), containertest.Start, n)
		if !h.runtime.Exit(calls[n-1].ID, 3) {
			t.Fatalf("attempt %d does not run", n)
		}
	}
	h.await("crash loop", func() bool { return h.waiting() == status.CrashLoopBackOff })
	h.await("restart", func() bool {
		s := h.status()
		return s.ContainerStatuses[0].RestartCount == 3 && s.ContainerStatuses[0].State.Running != nil
	})
	last := h.status().ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 3 || last.Reason != status.ReasonError {
		t.Errorf("last state %+v, want exit code 3 and reason Error", last)
	}
	h.awaitEvent("Warning BackOff Back-off restarting failed container app in pod hello_default(uid-1)")
}

func TestWorkerReportsWhatCannotStart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	h.options.BackoffBase = testDeadline // stays in back-off
	h.runtime.FailNext(containertest.Start, &container.StartError{ExitCode: 127, Message: `"/app": no such file or directory`})
	h.runtime.FailNext(containertest.Start, &container.StartError{ExitCode: 127, Message: `"/app": no such file or directory`})
	h.start()
	h.await("crash loop", func() bool { return h.waiting() == status.CrashLoopBackOff })
	last := h.status().ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.Reason != status.ReasonStartError || last.ExitCode != 127 ||
		!strings.Contains(last.Message, "no such file or directory") {
		t.Errorf("last state %+v", last)
	}
	h.awaitEvent(`Warning Failed Error: starting container process: "/app": no such file or directory`)
}

func TestWorkerWaitsForConfigMaps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*v1.Pod)
		want   string
		event  string
	}{
		{
			name: "in the environment",
			change: func(p *v1.Pod) {
				p.Spec.Containers[0].EnvFrom = []v1.EnvFromSource{{
					ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}},
				}}
			},
			want: status.CreateContainerConfigErr, event: `Error: configmaps "settings" not found`,
		},
		{
			name: "in a volume",
			change: func(p *v1.Pod) {
				p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{
					ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}},
				}}}
				p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
			},
			want: status.ContainerCreating, event: `FailedMount MountVolume.SetUp failed for volume "v" : configmaps "settings" not found`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, testPod(tt.change))
			h.start()
			h.await(tt.want, func() bool { return h.waiting() == tt.want })
			h.awaitEvent(tt.event)
			h.await("the status says what is missing", func() bool {
				s := h.status().ContainerStatuses[0].State.Waiting
				return s != nil && s.Reason == tt.want && strings.HasSuffix(s.Message, `configmaps "settings" not found`)
			})
			settings := &v1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings", UID: "s", ResourceVersion: "2"},
				Data:       map[string]string{"COLOR": "blue"},
			}
			if _, err := h.client.CoreV1().ConfigMaps("default").Create(t.Context(), settings, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			h.await("readiness", h.ready)
		})
	}
}

func TestWorkerStopsPod(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod(func(p *v1.Pod) {
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"drain"}}}}
	}))
	w := New(h.options, h.pod, nil)
	done, _ := h.run(w)
	h.await("readiness", h.ready)

	now := metav1.Now()
	deleted := h.pod.DeepCopy()
	deleted.ResourceVersion, deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds = "2", &now, new(int64(5))
	w.Update(deleted)
	h.await("deletion", h.gone)
	<-done

	if calls := h.runtime.Calls(containertest.Exec); len(calls) != 1 || calls[0].Exec.Args[0] != "drain" {
		t.Errorf("preStop calls: %v", calls)
	}
	kills := h.runtime.Calls(containertest.Kill)
	if len(kills) != 1 || kills[0].Signal != 15 {
		t.Errorf("signals: %v, want one SIGTERM", kills)
	}
	if h.sandboxes.count() != 0 || len(h.runtime.Running()) != 0 {
		t.Error("the sandbox or a container was left")
	}
	if entries, err := os.ReadDir(h.options.Root); err != nil || len(entries) != 0 {
		t.Errorf("left on disk: %v, %v", entries, err)
	}
	h.awaitEvent("Normal Killing Stopping container app")
}

func TestWorkerKillsAfterGrace(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	h.runtime.IgnoreSignals(15)
	w := New(h.options, h.pod, nil)
	done, _ := h.run(w)
	h.await("readiness", h.ready)
	deleted := h.pod.DeepCopy()
	deleted.ResourceVersion, deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds = "2", new(metav1.Now()), new(int64(1))
	w.Update(deleted)
	<-done
	var signals []int
	for _, c := range h.runtime.Calls(containertest.Kill) {
		signals = append(signals, c.Signal)
	}
	if diff := cmp.Diff([]int{15, 9}, signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

func TestWorkerCancelsStart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod(func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{
			Secret: &v1.SecretVolumeSource{SecretName: "never"},
		}}}
	}))
	w := New(h.options, h.pod, nil)
	done, _ := h.run(w)
	h.awaitEvent("FailedMount")
	w.Remove(nil)
	<-done
	if h.sandboxes.count() != 0 {
		t.Error("the sandbox was left")
	}
}

func TestWorkerRunsInitContainersInOrder(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod(func(p *v1.Pod) {
		p.Spec.InitContainers = []v1.Container{
			{Name: "first", Image: "example.com/init:1"},
			{Name: "side", Image: "example.com/side:1", RestartPolicy: new(v1.ContainerRestartPolicyAlways)},
			{Name: "second", Image: "example.com/init:1"},
		}
	}))
	h.start()
	name := func(c containertest.Call) string { return c.Spec.Labels[LabelContainer] }
	calls := h.runtime.AwaitCalls(t.Context(), containertest.Start, 1)
	h.await("initialising", func() bool {
		s := h.status()
		return len(s.ContainerStatuses) > 0 && s.ContainerStatuses[0].State.Waiting != nil &&
			s.ContainerStatuses[0].State.Waiting.Reason == status.PodInitializing
	})
	h.runtime.Exit(calls[0].ID, 0)
	calls = h.runtime.AwaitCalls(t.Context(), containertest.Start, 3)
	h.runtime.Exit(calls[2].ID, 0)
	calls = h.runtime.AwaitCalls(t.Context(), containertest.Start, 4)
	h.await("readiness", h.ready)
	got := []string{name(calls[0]), name(calls[1]), name(calls[2]), name(calls[3])}
	if diff := cmp.Diff([]string{"first", "side", "second", "app"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestWorkerEndsPodsThatAreOver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		code int
		want v1.PodPhase
	}{
		{name: "success", code: 0, want: v1.PodSucceeded},
		{name: "failure", code: 2, want: v1.PodFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, testPod(func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever }))
			h.start()
			h.runtime.Exit(h.runtime.AwaitCalls(t.Context(), containertest.Start, 1)[0].ID, tt.code)
			h.await(string(tt.want), func() bool { return h.status().Phase == tt.want })
			h.await("release of the sandbox", func() bool { return h.sandboxes.count() == 0 })
			s := h.status().ContainerStatuses[0]
			if s.State.Terminated == nil || int(s.State.Terminated.ExitCode) != tt.code {
				t.Errorf("state %+v, want exit code %d", s.State, tt.code)
			}
		})
	}
}

func TestWorkerAdoptsContainers(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	_, stop := h.run(New(h.options, h.pod, nil))
	h.await("readiness", h.ready)
	before := h.status()
	stop()

	pod, err := h.client.CoreV1().Pods("default").Get(t.Context(), "hello", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	left, err := h.runtime.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.run(New(h.options, pod, left))
	h.runtime.Exit(left[0].ID, 7)
	h.await("restart after the adopted container ended", func() bool {
		s := h.status().ContainerStatuses[0]
		return s.RestartCount == 1 && s.State.Running != nil && s.LastTerminationState.Terminated != nil
	})
	after := h.status().ContainerStatuses[0].LastTerminationState.Terminated
	if after.ExitCode != 7 || after.ContainerID != before.ContainerStatuses[0].ContainerID ||
		!after.StartedAt.Equal(&before.ContainerStatuses[0].State.Running.StartedAt) {
		t.Errorf("last state %+v does not continue %+v", after, before.ContainerStatuses[0])
	}
}

func TestOrphanIsStoppedAndRemoved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod())
	_, stop := h.run(New(h.options, h.pod, nil))
	h.await("readiness", h.ready)
	stop()
	left, err := h.runtime.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewOrphan(h.options, h.pod.UID, left)
	if err != nil {
		t.Fatal(err)
	}
	done, _ := h.run(w)
	<-done
	if len(h.runtime.Running()) != 0 || h.sandboxes.count() != 0 {
		t.Error("the orphan's container or sandbox was left")
	}
	if kills := h.runtime.Calls(containertest.Kill); len(kills) != 1 || kills[0].Signal != 15 {
		t.Errorf("signals %v, want one SIGTERM", kills)
	}
}

func TestWorkerProbes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod(func(p *v1.Pod) {
		exec := func(word string) *v1.Probe {
			return &v1.Probe{
				ProbeHandler:  v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{word}}},
				PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1,
			}
		}
		p.Spec.Containers[0].StartupProbe = exec("startup")
		p.Spec.Containers[0].ReadinessProbe = exec("readiness")
		p.Spec.Containers[0].LivenessProbe = exec("liveness")
	}))
	alive := make(chan struct{})
	h.runtime.OnExec(func(_ context.Context, _ string, o container.ExecOptions) (int, error) {
		if o.Args[0] == "liveness" {
			select {
			case <-alive:
				_, _ = o.Stdout.Write([]byte("I am not well"))
				return 1, nil
			default:
			}
		}
		return 0, nil
	})
	h.start()
	h.await("readiness", h.ready)
	if s := h.status().ContainerStatuses[0]; s.Started == nil || !*s.Started {
		t.Errorf("the container is ready without having started: %+v", s)
	}
	close(alive)
	h.awaitEvent("Warning Unhealthy Liveness probe failed: I am not well")
	h.await("restart", func() bool { return h.status().ContainerStatuses[0].RestartCount > 0 })
}

func TestWorkerWritesTheStatusUntilItWorks(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	h := newHarness(t, testPod(), func(c *fake.Clientset) {
		c.PrependReactor("patch", "pods", func(kubetesting.Action) (bool, runtime.Object, error) {
			return tries.Add(1) <= 2, nil, apierrors.NewInternalError(errors.New("not now"))
		})
	})
	h.start()
	h.await("readiness", h.ready)
	if got := tries.Load(); got != 3 {
		t.Errorf("the status was written %d times, want two failures and one success", got)
	}
}

func TestWorkerEndsPodsThatAreActiveForTooLong(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod(func(p *v1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(1)) }))
	h.start()
	h.await("failure", func() bool { return h.status().Phase == v1.PodFailed && len(h.runtime.Running()) == 0 })
	if s := h.status(); s.Reason != "DeadlineExceeded" || s.Message != "Pod was active on the node longer than the specified deadline" {
		t.Errorf("reason %q, message %q", s.Reason, s.Message)
	}
}

func TestWorkerRunsPostStartBeforeReadiness(t *testing.T) {
	t.Parallel()
	h := newHarness(t, testPod(func(p *v1.Pod) {
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"warm"}}}}
	}))
	var failed atomic.Bool
	h.runtime.OnExec(func(context.Context, string, container.ExecOptions) (int, error) {
		if failed.CompareAndSwap(false, true) {
			return 1, nil
		}
		return 0, nil
	})
	h.start()
	h.await("readiness after the second attempt", h.ready)
	if s := h.status().ContainerStatuses[0]; s.RestartCount != 1 {
		t.Errorf("%d restarts, want one for the hook that failed", s.RestartCount)
	}
	h.awaitEvent("Warning FailedPostStartHook PostStartHook failed")
}
