package route

import (
	corev1 "k8s.io/api/core/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Referred are the objects that a route's traffic can mean, by name, in the route's namespace. Those that do not exist are
// missing from the maps.
type Referred struct {
	Configurations map[string]*servingv1.Configuration
	Revisions      map[string]*servingv1.Revision
}

// Problem is why a route's traffic cannot be assigned.
type Problem struct {
	// Failure is false when waiting may help.
	Failure bool
	// Mark notes it in the conditions.
	Mark func(*servingv1.RouteStatus)
}

// Resolve turns the route's spec into traffic to revisions, one entry per distinct revision, tag and latestRevision in the
// order of the spec. Nothing is assigned when one target has a problem: half a split would be another split. Of several
// problems the last failure is returned, or else the first that waiting may cure, which is upstream's choice.
func Resolve(r *servingv1.Route, in Referred) ([]servingv1.TrafficTarget, *Problem) {
	var targets []servingv1.TrafficTarget
	var problem *Problem
	for i := range r.Spec.Traffic {
		target, p := in.resolve(r, &r.Spec.Traffic[i])
		switch {
		case p != nil && (problem == nil || p.Failure):
			problem = p
		case p == nil && target != nil:
			targets = merge(targets, *target)
		}
	}
	if problem != nil {
		return nil, problem
	}
	return targets, nil
}

// resolve returns nil without a problem for an entry that names nothing, which admission refuses.
func (in Referred) resolve(r *servingv1.Route, spec *servingv1.TrafficTarget) (*servingv1.TrafficTarget, *Problem) {
	name := spec.RevisionName
	switch {
	case name != "":
		if p := in.pinned(r, name); p != nil {
			return nil, p
		}
	case spec.ConfigurationName != "":
		c, ok := in.Configurations[spec.ConfigurationName]
		if !ok {
			return nil, missing("Configuration", spec.ConfigurationName)
		}
		if name = c.Status.LatestReadyRevisionName; name == "" {
			return nil, unreadyConfiguration(c)
		}
		revision, ok := in.Revisions[name]
		if !ok {
			return nil, missing("Revision", name)
		}
		if !revision.IsReady() {
			return nil, unreadyRevision(revision)
		}
	default:
		return nil, nil
	}
	target := &servingv1.TrafficTarget{Tag: spec.Tag, RevisionName: name, Percent: new(int64(0))}
	if spec.Percent != nil {
		*target.Percent = *spec.Percent
	}
	if spec.LatestRevision != nil {
		target.LatestRevision = new(*spec.LatestRevision)
	}
	return target, nil
}

// pinned checks a revision that the user named.
func (in Referred) pinned(r *servingv1.Route, name string) *Problem {
	revision, ok := in.Revisions[name]
	if !ok {
		return missing("Revision", name)
	}
	// The route of a Service sends traffic to that Service only; other routes to whom they want.
	if service := r.Labels[serving.ServiceLabelKey]; service != "" && service != revision.Labels[serving.ServiceLabelKey] {
		return &Problem{Failure: true, Mark: func(rs *servingv1.RouteStatus) {
			rs.MarkRevisionNotOwned(name, service, revision.Labels[serving.ServiceLabelKey])
		}}
	}
	if !revision.IsReady() {
		return unreadyRevision(revision)
	}
	if owner, ok := revision.Labels[serving.ConfigurationLabelKey]; ok && in.Configurations[owner] == nil {
		return missing("Configuration", owner)
	}
	return nil
}

// merge adds a target to the list, or its percentage to an equal one.
func merge(targets []servingv1.TrafficTarget, t servingv1.TrafficTarget) []servingv1.TrafficTarget {
	latest := func(t *servingv1.TrafficTarget) bool { return t.LatestRevision != nil && *t.LatestRevision }
	for i := range targets {
		if have := &targets[i]; have.Tag == t.Tag && have.RevisionName == t.RevisionName && latest(have) == latest(&t) {
			have.Percent = new(*have.Percent + *t.Percent)
			return targets
		}
	}
	return append(targets, t)
}

func missing(kind, name string) *Problem {
	return &Problem{Failure: true, Mark: func(rs *servingv1.RouteStatus) { rs.MarkMissingTrafficTarget(kind, name) }}
}

func unreadyConfiguration(c *servingv1.Configuration) *Problem {
	if c.Status.GetCondition(servingv1.ConfigurationConditionReady).IsFalse() {
		return &Problem{Failure: true, Mark: func(rs *servingv1.RouteStatus) { rs.MarkConfigurationFailed(c.Name) }}
	}
	return &Problem{Mark: func(rs *servingv1.RouteStatus) { rs.MarkConfigurationNotReady(c.Name) }}
}

func unreadyRevision(r *servingv1.Revision) *Problem {
	if c := r.Status.GetCondition(servingv1.RevisionConditionReady); c != nil && c.Status == corev1.ConditionFalse {
		return &Problem{Failure: true, Mark: func(rs *servingv1.RouteStatus) { rs.MarkRevisionFailed(r.Name) }}
	}
	return &Problem{Mark: func(rs *servingv1.RouteStatus) { rs.MarkRevisionNotReady(r.Name) }}
}
