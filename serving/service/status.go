package service

import (
	"maps"

	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/status"
)

// reflectConfiguration copies what the configuration reports, unless it has not looked at its latest generation yet: what it
// says then is about another template.
func reflectConfiguration(s *servingv1.ServiceStatus, c *servingv1.Configuration) {
	if c.Generation != c.Status.ObservedGeneration {
		s.MarkConfigurationNotReconciled()
		return
	}
	reported := c.Status
	reported.Conditions = status.Verbatim(reported.Conditions)
	s.PropagateConfigurationStatus(&reported)
}

// reflectRoute copies what the route reports. A ready route whose traffic is still that of an older revision is not what the
// user asked for: clients that wait for Ready would measure the old revision.
func reflectRoute(s *servingv1.ServiceStatus, r *servingv1.Route, c *servingv1.Configuration) {
	if r.Generation != r.Status.ObservedGeneration {
		s.MarkRouteNotReconciled()
		return
	}
	reported := r.Status
	reported.Conditions = status.Verbatim(reported.Conditions)
	s.PropagateRouteStatus(&reported)
	if s.GetCondition(servingv1.ServiceConditionRoutesReady).IsTrue() && !migrated(r, c) {
		s.MarkRouteNotYetReady()
	}
}

// explain lets the Ready condition say what the configuration reports when that is not ready. A route without a revision only
// says that it has none, which is the consequence, and would hide the cause because it is marked later.
func explain(s *servingv1.Service) {
	cause := s.Status.GetCondition(servingv1.ServiceConditionConfigurationsReady)
	conditions := s.GetConditionSet().Manage(&s.Status)
	switch {
	case cause.IsFalse():
		conditions.MarkFalse(servingv1.ServiceConditionConfigurationsReady, cause.Reason, "%s", cause.Message)
	case cause.IsUnknown() && cause.GetMessage() != "":
		conditions.MarkUnknown(servingv1.ServiceConditionConfigurationsReady, cause.Reason, "%s", cause.Message)
	}
}

// migrated says whether the route's traffic goes where its spec sends it, given the configuration's latest ready revision.
// Targets that come to the same are one in the status, and the order of targets means nothing.
func migrated(r *servingv1.Route, c *servingv1.Configuration) bool {
	type destination struct{ tag, revision string }
	want, got := map[destination]int64{}, map[destination]int64{}
	for i := range r.Spec.Traffic {
		t := &r.Spec.Traffic[i]
		revision := t.RevisionName
		if t.ConfigurationName == c.Name {
			revision = c.Status.LatestReadyRevisionName
		} else if t.ConfigurationName != "" {
			return false // a Service's route follows its own configuration only
		}
		want[destination{t.Tag, revision}] += percent(t)
	}
	for i := range r.Status.Traffic {
		t := &r.Status.Traffic[i]
		got[destination{t.Tag, t.RevisionName}] += percent(t)
	}
	return maps.Equal(want, got)
}

func percent(t *servingv1.TrafficTarget) int64 {
	if t.Percent == nil {
		return 0
	}
	return *t.Percent
}
