package serving_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/serving/servingtest"
)

func TestFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		status        corev1.ContainerStatus
		wantReason    string // of the revision
		wantMessage   string // of the Service
		wantServiceIs string
	}{
		{
			name:   "image cannot be pulled",
			status: corev1.ContainerStatus{State: waiting("ErrImagePull", "not found, 100% sure")}, wantReason: "ErrImagePull",
			wantMessage:   `Revision "hello-00002" failed with message: Unable to fetch image "example.com/hello:2": not found, 100% sure.`,
			wantServiceIs: "False RevisionFailed",
		},
		{
			name: "container exits",
			status: corev1.ContainerStatus{
				State:                waiting("CrashLoopBackOff", "back-off"),
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Message: "no database"}},
			},
			wantReason: "ExitCode3", wantMessage: `Revision "hello-00002" failed with message: Container failed with: no database.`,
			wantServiceIs: "False RevisionFailed",
		},
		{
			name: "probe does not succeed",
			status: corev1.ContainerStatus{
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1, 0)}},
			},
			wantReason:    "ContainerNotReady",
			wantMessage:   `Container "user-container" is running, but its readiness probe (a TCP connection to port 8080) has not succeeded yet.`,
			wantServiceIs: "Unknown ContainerNotReady",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.apply("hello", nil)
			w.start("hello-00001")
			w.update("hello", func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Image = "example.com/hello:2" })
			w.pod("hello-00002", tt.status)

			rev := servingtest.Get[servingv1.Revision](t, w.Cluster, "hello-00002")
			if got := rev.Status.GetCondition(servingv1.RevisionConditionReady).Reason; got != tt.wantReason {
				t.Errorf("reason of the revision is %q, want %q", got, tt.wantReason)
			}
			s := w.condition("hello", "ConfigurationsReady", tt.wantServiceIs)
			if got := s.Status.GetCondition("ConfigurationsReady").GetMessage(); got != tt.wantMessage {
				t.Errorf("message of the Service is %q, want %q", got, tt.wantMessage)
			}
			w.condition("hello", ready, tt.wantServiceIs)
			w.condition("hello", "RoutesReady", isTrue)
			if diff := cmp.Diff([]string{"hello-00001:100"}, w.traffic("hello")); diff != "" {
				t.Errorf("traffic does not stay with the old revision (-want +got):\n%s", diff)
			}

			// And it recovers when the cause goes.
			w.start("hello-00002")
			w.condition("hello", ready, isTrue)
		})
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func TestMissingRevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.start("hello-00001")
	w.update("hello", func(s *servingv1.Service) {
		s.Spec.Traffic = []servingv1.TrafficTarget{{RevisionName: "hello-none", Percent: new(int64(100))}}
	})
	s := w.condition("hello", "RoutesReady", "False RevisionMissing")
	if got, want := s.Status.GetCondition("RoutesReady").Message, `Revision "hello-none" referenced in traffic not found.`; got != want {
		t.Errorf("message is %q, want %q", got, want)
	}
	r := servingtest.Get[servingv1.Route](t, w.Cluster, "hello")
	if len(r.Status.Traffic) != 1 || r.Status.Traffic[0].RevisionName != "hello-00001" {
		t.Errorf("traffic is %v, want what worked before", r.Status.Traffic)
	}
}

func TestOtherServicesRevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("other", nil)
	w.start("other-00001")
	w.apply("hello", func(s *servingv1.Service) {
		s.Spec.Traffic = []servingv1.TrafficTarget{{RevisionName: "other-00001", Percent: new(int64(100))}}
	})
	w.start("hello-00001")
	w.condition("hello", "RoutesReady", "False RevisionNotOwned")
}

func TestNotOwned(t *testing.T) {
	t.Parallel()
	meta := metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "hello"}
	tests := []struct {
		name      string
		foreign   client.Object
		condition string
		want      string
	}{
		{name: "configuration", foreign: &servingv1.Configuration{ObjectMeta: meta}, condition: "ConfigurationsReady", want: "False NotOwned"},
		{name: "route", foreign: &servingv1.Route{ObjectMeta: meta}, condition: "RoutesReady", want: "False NotOwned"},
		{name: "placeholder", foreign: &corev1.Service{ObjectMeta: meta}, condition: "RoutesReady", want: "False NotOwned"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.foreign)
			w.apply("hello", nil)
			if tt.name == "placeholder" {
				w.start("hello-00001")
			}
			s := w.condition("hello", tt.condition, tt.want)
			if got := s.Status.GetCondition(servingv1.ServiceConditionReady); !got.IsFalse() || !strings.Contains(got.Message, "that we do not own") {
				t.Errorf("Ready is %v, want False with the reason", got)
			}
			if len(s.Status.Traffic) != 0 {
				t.Errorf("traffic is %v, want none for a name that is not ours", s.Status.Traffic)
			}
		})
	}
}

func TestRevisionNotOwned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "hello-00001-deployment"}})
	w.apply("hello", nil)
	rev := servingtest.Get[servingv1.Revision](t, w.Cluster, "hello-00001")
	got := rev.Status.GetCondition(servingv1.RevisionConditionResourcesAvailable)
	if !got.IsFalse() || got.Reason != servingv1.ReasonNotOwned {
		t.Errorf("ResourcesAvailable is %v, want False with reason NotOwned", got)
	}
}

// TestFirstRevisionFails wants the cause, not its consequence for the route, where users look first.
func TestFirstRevisionFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("hello", nil)
	w.pod("hello-00001", corev1.ContainerStatus{
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: "no database"}},
	})
	w.condition("hello", "RoutesReady", "False RevisionMissing")
	s := w.condition("hello", ready, "False RevisionFailed")
	want := `Revision "hello-00001" failed with message: Container failed with: no database.`
	if got := s.Status.GetCondition(ready).Message; got != want {
		t.Errorf("message is %q, want %q", got, want)
	}
	w.start("hello-00001")
	w.condition("hello", ready, isTrue)
}
