package service

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// readyConfiguration is at revision hello-00002.
func readyConfiguration() *servingv1.Configuration {
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello", Generation: 2}}
	c.Status.ObservedGeneration = 2
	c.Status.InitializeConditions()
	c.Status.SetLatestCreatedRevisionName("hello-00002")
	c.Status.SetLatestReadyRevisionName("hello-00002")
	return c
}

// readyRoute sends all traffic to a revision.
func readyRoute(revision string) *servingv1.Route {
	r := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Name: "hello", Generation: 1}}
	r.Spec.Traffic = []servingv1.TrafficTarget{{ConfigurationName: "hello", LatestRevision: new(true), Percent: new(int64(100))}}
	r.Status.ObservedGeneration = 1
	r.Status.InitializeConditions()
	r.Status.MarkTrafficAssigned()
	r.Status.MarkTLSNotEnabled("")
	r.GetConditionSet().Manage(&r.Status).MarkTrue(servingv1.RouteConditionIngressReady)
	r.Status.Traffic = []servingv1.TrafficTarget{{RevisionName: revision, LatestRevision: new(true), Percent: new(int64(100))}}
	return r
}

func TestConditions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		configuration func(*servingv1.Configuration)
		route         func(*servingv1.Route)
		// kind of the condition that is looked at, and what it must be.
		kind            apis.ConditionType
		status          corev1.ConditionStatus
		reason, message string
	}{
		{name: "all is well", kind: servingv1.ServiceConditionReady, status: corev1.ConditionTrue},
		{
			name: "the configuration has not looked yet", kind: servingv1.ServiceConditionConfigurationsReady, status: corev1.ConditionUnknown,
			configuration: func(c *servingv1.Configuration) { c.Generation++ },
			reason:        "OutOfDate", message: "The Configuration is still working to reflect the latest desired specification.",
		},
		{
			name: "the route has not looked yet", kind: servingv1.ServiceConditionRoutesReady, status: corev1.ConditionUnknown,
			route:  func(r *servingv1.Route) { r.Generation++ },
			reason: "OutOfDate", message: "The Route is still working to reflect the latest desired specification.",
		},
		{
			name: "the traffic is an older revision's", kind: servingv1.ServiceConditionRoutesReady, status: corev1.ConditionUnknown,
			route:  func(r *servingv1.Route) { r.Status.Traffic[0].RevisionName = "hello-00001" },
			reason: "TrafficNotMigrated", message: "Traffic is not yet migrated to the latest revision.",
		},
		{
			name: "what the route says", kind: servingv1.ServiceConditionRoutesReady, status: corev1.ConditionUnknown,
			route:  func(r *servingv1.Route) { r.Status.MarkIngressRolloutInProgress() },
			reason: "RolloutInProgress", message: "A gradual rollout of the latest revision(s) is in progress.",
		},
		{
			name: "a percent sign is no verb", kind: servingv1.ServiceConditionRoutesReady, status: corev1.ConditionFalse,
			route:  func(r *servingv1.Route) { r.Status.MarkRevisionTargetTrafficError("ErrorConfig", "100%% wrong") },
			reason: "ErrorConfig", message: "100% wrong",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, c, r := example(), readyConfiguration(), readyRoute("hello-00002")
			if tt.configuration != nil {
				tt.configuration(c)
			}
			if tt.route != nil {
				tt.route(r)
			}
			s.Status.InitializeConditions()
			reflectConfiguration(&s.Status, c)
			reflectRoute(&s.Status, r, c)
			explain(s)
			got := s.Status.GetCondition(tt.kind)
			if got == nil || got.Status != tt.status || got.Reason != tt.reason || got.Message != tt.message {
				t.Errorf("%s is %v, want %s %s %q", tt.kind, got, tt.status, tt.reason, tt.message)
			}
		})
	}
}
