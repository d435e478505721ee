package revision

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

var now = time.Unix(10000, 0)

// conditionOf writes a condition as "<status> <reason>: <message>".
func conditionOf(rs *servingv1.RevisionStatus, kind string) string {
	for _, c := range rs.Conditions {
		if string(c.Type) == kind {
			return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		}
	}
	return "none"
}

// starting is a Deployment that wants an instance and has none.
func starting() *appsv1.Deployment {
	d := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: new(int32(1))}}
	d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}}
	return d
}

// podOf is a pod whose only container is in a state.
func podOf(name string, status corev1.ContainerStatus) corev1.Pod {
	status.Name, status.Image = "user-container", "example.com/hello"
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}},
	}
}

func waiting(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func terminated(code int32, reason, message string) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}
}

func runningFor(d time.Duration) corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-d))}}}
}

func unschedulable() corev1.Pod {
	return corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes: 100% full, Insufficient cpu",
	}}}}
}

func TestReflectPods(t *testing.T) {
	t.Parallel()
	const deploying = "Unknown Deploying: "
	tests := []struct {
		name          string
		pods          []corev1.Pod
		deployment    func(*appsv1.Deployment)
		healthy       bool // before
		maps          map[string]map[string]string
		wantResources string
		wantContainer string
		wantReady     string
		wantWait      time.Duration
	}{
		{
			name: "no pod yet", wantResources: deploying, wantContainer: deploying, wantReady: deploying,
		},
		{
			name: "being created", pods: []corev1.Pod{podOf("a", waiting("ContainerCreating", ""))},
			wantResources: deploying, wantContainer: deploying, wantReady: deploying,
		},
		{
			name:          "waits for a volume",
			pods:          []corev1.Pod{podOf("a", waiting("ContainerCreating", `MountVolume.SetUp failed for volume "v" : secret "100%" not found`))},
			wantResources: `Unknown ContainerCreating: MountVolume.SetUp failed for volume "v" : secret "100%" not found`, wantContainer: deploying,
			wantReady: `Unknown ContainerCreating: MountVolume.SetUp failed for volume "v" : secret "100%" not found`,
		},
		{
			name: "has waited for a volume until its deadline", pods: []corev1.Pod{podOf("a", waiting("PodInitializing", "no such secret"))},
			deployment: func(d *appsv1.Deployment) {
				d.Status.Conditions[0].Status, d.Status.Conditions[0].Reason = corev1.ConditionFalse, servingv1.ReasonProgressDeadlineExceeded
			},
			wantResources: "False PodInitializing: no such secret", wantContainer: deploying, wantReady: "False PodInitializing: no such secret",
		},
		{
			name: "image cannot be pulled", pods: []corev1.Pod{podOf("a", waiting("ImagePullBackOff", "Back-off pulling image"))},
			wantResources: `False ImagePullBackOff: Unable to fetch image "example.com/hello": Back-off pulling image`,
			wantContainer: deploying,
			wantReady:     `False ImagePullBackOff: Unable to fetch image "example.com/hello": Back-off pulling image`,
		},
		{
			name: "a revision that was ready waits for its deadline", pods: []corev1.Pod{podOf("a", waiting("ErrImagePull", "registry is down"))},
			healthy: true, wantResources: deploying, wantContainer: "True : ", wantReady: deploying,
		},
		{
			name: "a revision that was ready, after its deadline", pods: []corev1.Pod{podOf("a", waiting("ErrImagePull", "registry is down"))},
			deployment: func(d *appsv1.Deployment) {
				d.Status.Conditions[0].Status, d.Status.Conditions[0].Reason = corev1.ConditionFalse, servingv1.ReasonProgressDeadlineExceeded
			},
			healthy:       true,
			wantResources: `False ErrImagePull: Unable to fetch image "example.com/hello": registry is down`,
			wantContainer: "True : ",
			wantReady:     `False ErrImagePull: Unable to fetch image "example.com/hello": registry is down`,
		},
		{
			name: "configuration is missing", pods: []corev1.Pod{podOf("a", waiting("CreateContainerConfigError", `configmap "c" not found`))},
			wantResources: `False CreateContainerConfigError: configmap "c" not found`, wantContainer: deploying,
			wantReady: `False CreateContainerConfigError: configmap "c" not found`,
		},
		{
			name: "exited", pods: []corev1.Pod{podOf("a", corev1.ContainerStatus{State: corev1.ContainerState{Terminated: terminated(2, "Error", "usage\n")}})},
			wantResources: "True : ", wantContainer: "False ExitCode2: Container failed with: usage",
			wantReady: "False ExitCode2: Container failed with: usage",
		},
		{
			name:          "exited without a word",
			pods:          []corev1.Pod{podOf("a", corev1.ContainerStatus{LastTerminationState: corev1.ContainerState{Terminated: terminated(0, "Completed", "")}})},
			wantResources: "True : ", wantContainer: "False ExitCode0: Container failed with: container exited with no error",
			wantReady: "False ExitCode0: Container failed with: container exited with no error",
		},
		{
			name:          "killed for its memory",
			pods:          []corev1.Pod{podOf("a", corev1.ContainerStatus{LastTerminationState: corev1.ContainerState{Terminated: terminated(137, "OOMKilled", "")}})},
			wantResources: "True : ", wantContainer: "False ExitCode137: Container failed with: OOMKilled",
			wantReady: "False ExitCode137: Container failed with: OOMKilled",
		},
		{
			name: "init container failed",
			pods: []corev1.Pod{{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{
				{Name: "ok", State: corev1.ContainerState{Terminated: terminated(0, "Completed", "")}},
				{Name: "bad", State: corev1.ContainerState{Terminated: terminated(1, "Error", "no schema")}},
			}}}},
			wantResources: "True : ", wantContainer: "False ExitCode1: Container failed with: no schema",
			wantReady: "False ExitCode1: Container failed with: no schema",
		},
		{
			name: "unschedulable", pods: []corev1.Pod{unschedulable()},
			wantResources: "False Unschedulable: 0/1 nodes: 100% full, Insufficient cpu", wantContainer: deploying,
			wantReady: "False Unschedulable: 0/1 nodes: 100% full, Insufficient cpu",
		},
		{
			name: "unschedulable where nodes come on demand", pods: []corev1.Pod{unschedulable()},
			maps:          map[string]map[string]string{"config-deployment": {"pod-is-always-schedulable": "true"}},
			wantResources: deploying, wantContainer: deploying, wantReady: deploying,
		},
		{
			name: "quota", deployment: func(d *appsv1.Deployment) {
				d.Status.Conditions = append(d.Status.Conditions, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "forbidden: exceeded quota, 100% used",
				})
			},
			wantResources: "False FailedCreate: forbidden: exceeded quota, 100% used", wantContainer: deploying,
			wantReady: "False FailedCreate: forbidden: exceeded quota, 100% used",
		},
		{
			name: "about to be ready", pods: []corev1.Pod{podOf("a", runningFor(time.Second))},
			wantResources: deploying, wantContainer: deploying, wantReady: deploying, wantWait: 2 * time.Second,
		},
		{
			name: "slow", pods: []corev1.Pod{podOf("a", runningFor(time.Minute))}, wantResources: deploying,
			wantContainer: `Unknown ContainerNotReady: Container "user-container" is running, but its readiness probe has not succeeded yet.`,
			wantReady:     `Unknown ContainerNotReady: Container "user-container" is running, but its readiness probe has not succeeded yet.`,
		},
		{
			name: "slow, and what is probed", wantResources: deploying, pods: []corev1.Pod{func() corev1.Pod {
				p := podOf("a", runningFor(time.Minute))
				get := &corev1.HTTPGetAction{Path: "/ready%20now", Port: intstr.FromInt32(8080)}
				p.Spec.Containers = []corev1.Container{{Name: "user-container", ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}}}}
				return p
			}()},
			wantContainer: `Unknown ContainerNotReady: Container "user-container" is running, but its readiness probe (GET /ready%20now on port 8080) has not succeeded yet.`,
			wantReady:     `Unknown ContainerNotReady: Container "user-container" is running, but its readiness probe (GET /ready%20now on port 8080) has not succeeded yet.`,
		},
		{
			name: "ready before the autoscaler says so", deployment: func(d *appsv1.Deployment) { d.Status.ReadyReplicas = 1 },
			pods:          []corev1.Pod{podOf("a", waiting("ErrImagePull", "another pod"))},
			wantResources: deploying, wantContainer: "True : ", wantReady: deploying,
		},
		{
			name: "scaled to zero", deployment: func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) },
			pods:    []corev1.Pod{podOf("a", corev1.ContainerStatus{State: corev1.ContainerState{Terminated: terminated(143, "Error", "")}})},
			healthy: true, wantResources: deploying, wantContainer: "True : ", wantReady: deploying,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			snapshot, err := config.Parse(tt.maps, config.Domains{})
			if err != nil {
				t.Fatal(err)
			}
			rs := &servingv1.RevisionStatus{}
			rs.InitializeConditions()
			rs.MarkContainerHealthyUnknown(servingv1.ReasonDeploying, "")
			if tt.healthy {
				rs.MarkContainerHealthyTrue()
			}
			d := starting()
			if tt.deployment != nil {
				tt.deployment(d)
			}
			reflectDeployment(rs, d, tt.pods, snapshot)
			reflectAutoscaler(rs, &autoscalingv1alpha1.PodAutoscaler{})
			wait := reflectSlowStart(rs, tt.pods, now)

			got := map[string]string{}
			for _, kind := range []string{"ResourcesAvailable", "ContainerHealthy", "Ready"} {
				got[kind] = conditionOf(rs, kind)
			}
			want := map[string]string{"ResourcesAvailable": tt.wantResources, "ContainerHealthy": tt.wantContainer, "Ready": tt.wantReady}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if wait != tt.wantWait {
				t.Errorf("wait is %v, want %v", wait, tt.wantWait)
			}
		})
	}
}

// TestBackOffKeepsTheReason follows a pod whose kubelet alternates between the failure and the wait for the next attempt.
func TestBackOffKeepsTheReason(t *testing.T) {
	t.Parallel()
	rs := &servingv1.RevisionStatus{}
	rs.InitializeConditions()
	const want = `False ErrImagePull: Unable to fetch image "example.com/hello": 404, 100% sure`
	for _, status := range []corev1.ContainerStatus{
		waiting("ErrImagePull", "404, 100% sure"), waiting("ImagePullBackOff", "Back-off"), waiting("ErrImagePull", "404, 100% sure"),
	} {
		reflectDeployment(rs, starting(), []corev1.Pod{podOf("a", status)}, config.Default(config.Domains{}))
		if got := conditionOf(rs, "ResourcesAvailable"); got != want {
			t.Errorf("ResourcesAvailable is %q, want %q", got, want)
		}
	}
}

func TestReflectAutoscaler(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		mark       func(*autoscalingv1alpha1.PodAutoscalerStatus)
		wantReady  string
		wantActive string
	}{
		{
			name: "activating", mark: func(ps *autoscalingv1alpha1.PodAutoscalerStatus) {
				ps.MarkActivating("Queued", "Requests wait, 100%% of them.")
			},
			wantReady: "Unknown Deploying: ", wantActive: "Unknown Queued: Requests wait, 100% of them.",
		},
		{
			name: "active", mark: func(ps *autoscalingv1alpha1.PodAutoscalerStatus) {
				ps.MarkActive()
				ps.MarkSKSReady()
				ps.MarkScaleTargetInitialized()
			},
			wantReady: "True : ", wantActive: "True : ",
		},
		{
			name: "at zero after it was ready", mark: func(ps *autoscalingv1alpha1.PodAutoscalerStatus) {
				ps.MarkScaleTargetInitialized()
				ps.MarkSKSReady()
				ps.MarkInactive("NoTraffic", "The target is not receiving traffic.")
			},
			wantReady: "True : ", wantActive: "False NoTraffic: The target is not receiving traffic.",
		},
		{
			name: "never started", mark: func(ps *autoscalingv1alpha1.PodAutoscalerStatus) { ps.MarkInactive("TimedOut", "") },
			wantReady: "False ProgressDeadlineExceeded: Initial scale was never achieved", wantActive: "False TimedOut: ",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rs := &servingv1.RevisionStatus{}
			rs.InitializeConditions()
			pa := &autoscalingv1alpha1.PodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "hello-00001"}}
			pa.Status.InitializeConditions()
			tt.mark(&pa.Status)
			reflectDeployment(rs, starting(), nil, config.Default(config.Domains{}))
			reflectAutoscaler(rs, pa)
			if got := conditionOf(rs, "Ready"); got != tt.wantReady {
				t.Errorf("Ready is %q, want %q", got, tt.wantReady)
			}
			if got := conditionOf(rs, "Active"); got != tt.wantActive {
				t.Errorf("Active is %q, want %q", got, tt.wantActive)
			}
		})
	}
}
