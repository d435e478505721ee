package status

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func pod(change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Generation: 2},
		Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyAlways,
			Containers:    []v1.Container{{Name: "a", Image: "a:1"}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func policy(policy v1.RestartPolicy) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.RestartPolicy = policy }
}

func second(p *v1.Pod) {
	p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "b", Image: "b:1"})
}

func initContainer(p *v1.Pod) { p.Spec.InitContainers = []v1.Container{{Name: "i", Image: "i:1"}} }

func sidecar(p *v1.Pod) {
	p.Spec.InitContainers = []v1.Container{{Name: "s", Image: "s:1", RestartPolicy: new(v1.ContainerRestartPolicyAlways)}}
}

func running(ready bool) Container {
	return Container{Current: &Attempt{ID: "1", Running: true, StartedAt: epoch}, Started: true, Ready: ready}
}

func exited(code int) Container {
	reason := ReasonError
	if code == 0 {
		reason = ReasonCompleted
	}
	return Container{Current: &Attempt{ID: "1", StartedAt: epoch, FinishedAt: epoch, ExitCode: code, Reason: reason}}
}

func crashing(code int) Container {
	c := exited(code)
	c.Waiting = &v1.ContainerStateWaiting{Reason: CrashLoopBackOff}
	return c
}

func TestPhase(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		pod        *v1.Pod
		containers map[string]Container
		final      bool
		want       v1.PodPhase
	}{
		{name: "nothing started", pod: pod(), want: v1.PodPending},
		{name: "running", pod: pod(), containers: map[string]Container{"a": running(false)}, want: v1.PodRunning},
		{name: "one of two not started", pod: pod(second), containers: map[string]Container{"a": running(true)}, want: v1.PodPending},
		{name: "one of two crashing", pod: pod(second), containers: map[string]Container{"a": running(true), "b": crashing(1)}, want: v1.PodRunning},
		{name: "crashing", pod: pod(), containers: map[string]Container{"a": crashing(1)}, want: v1.PodRunning},
		{name: "ended, always", pod: pod(), containers: map[string]Container{"a": exited(0)}, want: v1.PodRunning},
		{name: "ended, never", pod: pod(policy(v1.RestartPolicyNever)), containers: map[string]Container{"a": exited(0)}, want: v1.PodSucceeded},
		{name: "failed, never", pod: pod(policy(v1.RestartPolicyNever)), containers: map[string]Container{"a": exited(1)}, want: v1.PodFailed},
		{name: "ended, on failure", pod: pod(policy(v1.RestartPolicyOnFailure)), containers: map[string]Container{"a": exited(0)}, want: v1.PodSucceeded},
		{name: "failed, on failure", pod: pod(policy(v1.RestartPolicyOnFailure)), containers: map[string]Container{"a": exited(1)}, want: v1.PodRunning},
		{name: "one failed, never", pod: pod(second, policy(v1.RestartPolicyNever)), containers: map[string]Container{"a": exited(0), "b": exited(1)}, want: v1.PodFailed},
		{name: "one still running, never", pod: pod(second, policy(v1.RestartPolicyNever)), containers: map[string]Container{"a": exited(0), "b": running(true)}, want: v1.PodRunning},
		{name: "final success", pod: pod(), containers: map[string]Container{"a": exited(0)}, final: true, want: v1.PodSucceeded},
		{name: "final failure", pod: pod(), containers: map[string]Container{"a": exited(137)}, final: true, want: v1.PodFailed},
		{name: "initialising", pod: pod(initContainer), containers: map[string]Container{"i": running(false)}, want: v1.PodPending},
		{name: "initialisation is tried again", pod: pod(initContainer), containers: map[string]Container{"i": crashing(1)}, want: v1.PodPending},
		{name: "initialisation failed for good", pod: pod(initContainer, policy(v1.RestartPolicyNever)), containers: map[string]Container{"i": exited(1)}, want: v1.PodFailed},
		{name: "initialised", pod: pod(initContainer), containers: map[string]Container{"i": exited(0), "a": running(true)}, want: v1.PodRunning},
		{name: "sidecar starting", pod: pod(sidecar), containers: map[string]Container{"s": {Current: &Attempt{Running: true}}}, want: v1.PodPending},
		{name: "sidecar restarting", pod: pod(sidecar), containers: map[string]Container{"s": crashing(1), "a": running(true)}, want: v1.PodRunning},
		{name: "sidecar ends last", pod: pod(sidecar, policy(v1.RestartPolicyNever)), containers: map[string]Container{"s": running(true), "a": exited(0)}, want: v1.PodRunning},
		{name: "sidecar ended", pod: pod(sidecar, policy(v1.RestartPolicyNever)), containers: map[string]Container{"s": exited(143), "a": exited(0)}, want: v1.PodSucceeded},
		{name: "phase in the API is terminal", pod: pod(func(p *v1.Pod) { p.Status.Phase = v1.PodFailed }), containers: map[string]Container{"a": running(true)}, want: v1.PodFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Compute(Pod{Pod: tt.pod, Containers: tt.containers, Final: tt.final}, epoch).Phase
			if got != tt.want {
				t.Errorf("phase %s, want %s", got, tt.want)
			}
		})
	}
}

// brief is a condition without times.
type brief struct{ Status, Reason, Message string }

func TestConditions(t *testing.T) {
	t.Parallel()
	yes := brief{Status: "True"}
	for _, tt := range []struct {
		name       string
		pod        *v1.Pod
		containers map[string]Container
		sandbox    bool
		want       map[v1.PodConditionType]brief
	}{
		{
			name: "new", pod: pod(),
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: {Status: "False"}, v1.PodInitialized: yes, v1.PodScheduled: yes,
				v1.ContainersReady: {"False", "ContainersNotReady", "containers with unready status: [a]"},
				v1.PodReady:        {"False", "ContainersNotReady", "containers with unready status: [a]"},
			},
		},
		{
			name: "ready", pod: pod(), containers: map[string]Container{"a": running(true)}, sandbox: true,
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: yes, v1.PodInitialized: yes, v1.PodScheduled: yes, v1.ContainersReady: yes, v1.PodReady: yes,
			},
		},
		{
			name: "initialising", pod: pod(initContainer, second), containers: map[string]Container{"i": running(false)}, sandbox: true,
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: yes, v1.PodScheduled: yes,
				v1.PodInitialized:  {"False", "ContainersNotInitialized", "containers with incomplete status: [i]"},
				v1.ContainersReady: {"False", "ContainersNotReady", "containers with unready status: [a b]"},
				v1.PodReady:        {"False", "ContainersNotReady", "containers with unready status: [a b]"},
			},
		},
		{
			name: "succeeded", pod: pod(policy(v1.RestartPolicyNever)), containers: map[string]Container{"a": exited(0)},
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: {Status: "False"}, v1.PodScheduled: yes, v1.PodInitialized: {"True", "PodCompleted", ""},
				v1.ContainersReady: {"False", "PodCompleted", ""}, v1.PodReady: {"False", "PodCompleted", ""},
			},
		},
		{
			name: "failed", pod: pod(policy(v1.RestartPolicyNever)), containers: map[string]Container{"a": exited(1)},
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: {Status: "False"}, v1.PodScheduled: yes, v1.PodInitialized: yes,
				v1.ContainersReady: {"False", "PodFailed", ""}, v1.PodReady: {"False", "PodFailed", ""},
			},
		},
		{
			name: "readiness gate", sandbox: true, containers: map[string]Container{"a": running(true)},
			pod: pod(func(p *v1.Pod) { p.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "gate"}} }),
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: yes, v1.PodInitialized: yes, v1.PodScheduled: yes, v1.ContainersReady: yes,
				v1.PodReady: {"False", "ReadinessGatesNotReady", `corresponding condition of pod readiness gate "gate" does not exist.`},
			},
		},
		{
			name: "readiness gate not passed", sandbox: true, containers: map[string]Container{"a": running(true)},
			pod: pod(func(p *v1.Pod) {
				p.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "gate"}}
				p.Status.Conditions = []v1.PodCondition{{Type: "gate", Status: v1.ConditionFalse}}
			}),
			want: map[v1.PodConditionType]brief{
				v1.PodReadyToStartContainers: yes, v1.PodInitialized: yes, v1.PodScheduled: yes, v1.ContainersReady: yes,
				"gate":      {Status: "False"},
				v1.PodReady: {"False", "ReadinessGatesNotReady", `the status of pod readiness gate "gate" is not "True", but False`},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := map[v1.PodConditionType]brief{}
			for _, c := range Compute(Pod{Pod: tt.pod, Containers: tt.containers, Sandbox: tt.sandbox}, epoch).Conditions {
				got[c.Type] = brief{string(c.Status), c.Reason, c.Message}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTransitionTimeChangesWithTheStatusOnly(t *testing.T) {
	t.Parallel()
	in := Pod{Pod: pod(), Containers: map[string]Container{"a": running(false)}}
	in.Pod.Status = Compute(in, epoch)
	later := epoch.Add(time.Minute)
	in.Containers["a"] = running(true)
	for _, c := range Compute(in, later).Conditions {
		want := epoch
		if c.Type == v1.PodReady || c.Type == v1.ContainersReady {
			want = later
		}
		if !c.LastTransitionTime.Time.Equal(want) {
			t.Errorf("%s changed at %v, want %v", c.Type, c.LastTransitionTime, want)
		}
	}
}

func TestContainerStates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		pod       *v1.Pod
		container Container
		stopped   bool
		want      v1.ContainerState
		last      v1.ContainerState
	}{
		{name: "new", pod: pod(), want: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}}},
		{name: "new with init containers", pod: pod(initContainer), want: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "PodInitializing"}}},
		{name: "running", pod: pod(), container: running(true), want: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(epoch)}}},
		{
			name: "crashing", pod: pod(), container: crashing(1),
			want: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			last: v1.ContainerState{Terminated: exited(1).Current.Terminated()},
		},
		{name: "ended", pod: pod(), container: exited(0), want: v1.ContainerState{Terminated: exited(0).Current.Terminated()}},
		{
			name: "never started", pod: pod(), stopped: true,
			want: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
				ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "The container could not be located when the pod was terminated",
			}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := Compute(Pod{Pod: tt.pod, Containers: map[string]Container{"a": tt.container}, Stopped: tt.stopped}, epoch).ContainerStatuses[0]
			if diff := cmp.Diff(tt.want, s.State); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.last, s.LastTerminationState); diff != "" {
				t.Errorf("last state (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailureOfThePod(t *testing.T) {
	t.Parallel()
	s := Compute(Pod{Pod: pod(), Containers: map[string]Container{"a": running(true)}, Failure: DeadlineExceeded()}, epoch)
	if s.Phase != v1.PodFailed || s.Reason != "DeadlineExceeded" ||
		s.Message != "Pod was active on the node longer than the specified deadline" {
		t.Errorf("%s %s %s", s.Phase, s.Reason, s.Message)
	}
}

func TestShouldRestart(t *testing.T) {
	t.Parallel()
	rules := v1.Container{
		RestartPolicy: new(v1.ContainerRestartPolicyNever),
		RestartPolicyRules: []v1.ContainerRestartRule{{
			Action:    v1.ContainerRestartRuleActionRestart,
			ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
		}},
	}
	for _, tt := range []struct {
		name      string
		policy    v1.RestartPolicy
		container v1.Container
		init      bool
		code      int
		want      bool
	}{
		{name: "always", policy: v1.RestartPolicyAlways, code: 0, want: true},
		{name: "always, init, success", policy: v1.RestartPolicyAlways, init: true, code: 0, want: false},
		{name: "always, init, failure", policy: v1.RestartPolicyAlways, init: true, code: 1, want: true},
		{name: "on failure, success", policy: v1.RestartPolicyOnFailure, code: 0, want: false},
		{name: "on failure, failure", policy: v1.RestartPolicyOnFailure, code: 1, want: true},
		{name: "never", policy: v1.RestartPolicyNever, code: 1, want: false},
		{name: "own policy wins", policy: v1.RestartPolicyNever, container: v1.Container{RestartPolicy: new(v1.ContainerRestartPolicyAlways)}, code: 1, want: true},
		{name: "own rule wins", policy: v1.RestartPolicyNever, container: rules, code: 42, want: true},
		{name: "own rule does not match", policy: v1.RestartPolicyAlways, container: rules, code: 41, want: false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := ShouldRestart(pod(policy(tt.policy)), &tt.container, tt.init, tt.code); got != tt.want {
				t.Errorf("restart %v, want %v", got, tt.want)
			}
		})
	}
}

func TestQOS(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
	}
	for _, tt := range []struct {
		name             string
		requests, limits v1.ResourceList
		want             v1.PodQOSClass
	}{
		{name: "nothing", want: v1.PodQOSBestEffort},
		{name: "requests", requests: list("1", "1Mi"), want: v1.PodQOSBurstable},
		{name: "limits", limits: list("1", "1Mi"), want: v1.PodQOSGuaranteed},
		{name: "equal", requests: list("1", "1Mi"), limits: list("1", "1Mi"), want: v1.PodQOSGuaranteed},
		{name: "different", requests: list("1", "1Mi"), limits: list("2", "1Mi"), want: v1.PodQOSBurstable},
		{name: "one only", limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}, want: v1.PodQOSBurstable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := pod(func(p *v1.Pod) {
				p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: tt.requests, Limits: tt.limits}
			})
			if got := QOS(p); got != tt.want {
				t.Errorf("class %s, want %s", got, tt.want)
			}
		})
	}
}
