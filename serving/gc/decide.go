package gc

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/configuration"
)

// Cause is why a revision is kept or deleted.
type Cause int

// The causes, in the order in which they are asked about. A revision for which one of those up to NotReleased holds is in use;
// only the others count for the limits of config-gc.
const (
	// LatestReady is what routes follow, and Wanted what the configuration would make again at once.
	LatestReady Cause = iota
	Wanted
	// Preserved carries the annotation no-gc.
	Preserved
	// Routed has routes, and NotReleased is not known to be without: a route may be about to use it.
	Routed
	NotReleased
	// Minimum keeps revisions that are few enough.
	Minimum
	// Ageless is not deleted for its age, because ages are disabled.
	Ageless
	// Created and Active are younger than the config map's times.
	Created
	Active
	// Stale has outlived both times, and Excess is one of the oldest of too many.
	Stale
	Excess
)

// Verdict is what becomes of one revision.
type Verdict struct {
	Cause Cause
	// Until is when the passing of time alone may change the verdict; zero when it never does.
	Until time.Time
}

// Delete says whether the revision has to go.
func (v Verdict) Delete() bool { return v.Cause >= Stale }

// Verdicts decides about all revisions of a configuration; the result is in their order. The rules are those of upstream's
// collector, pkg/reconciler/gc: of the revisions without a route, those are deleted that are older than both times, the oldest
// first, as long as the minimum remains; and then the oldest beyond the maximum, whatever their age.
func Verdicts(c *servingv1.Configuration, revisions []servingv1.Revision, g *config.GC, now time.Time) []Verdict {
	verdicts := make([]Verdict, len(revisions))
	var idle []int // indexes of the revisions that are not in use
	for i := range revisions {
		if cause, used := inUse(c, &revisions[i]); used {
			verdicts[i] = Verdict{Cause: cause}
			continue
		}
		idle = append(idle, i)
	}
	slices.SortFunc(idle, func(a, b int) int { return older(&revisions[a], &revisions[b]) })

	left := int64(len(idle))
	for _, i := range idle {
		verdicts[i] = age(&revisions[i], g, now)
		switch {
		case left <= g.MinNonActiveRevisions:
			verdicts[i] = Verdict{Cause: Minimum}
		case verdicts[i].Delete():
			left--
		}
	}
	for _, i := range idle {
		if g.MaxNonActiveRevisions == config.Disabled || left <= g.MaxNonActiveRevisions {
			break
		}
		if !verdicts[i].Delete() {
			verdicts[i] = Verdict{Cause: Excess}
			left--
		}
	}
	if left <= g.MinNonActiveRevisions {
		// Those that were looked at while there were more wait for nothing any more.
		for _, i := range idle {
			if !verdicts[i].Delete() {
				verdicts[i] = Verdict{Cause: Minimum}
			}
		}
	}
	return verdicts
}

// inUse says whether a revision must stay whatever config-gc says, and why.
func inUse(c *servingv1.Configuration, r *servingv1.Revision) (Cause, bool) {
	switch {
	case r.Name == c.Status.LatestReadyRevisionName:
		return LatestReady, true
	case r.Name == configuration.RevisionName(c):
		// Upstream would delete it, and its configuration would make it again.
		return Wanted, true
	case strings.EqualFold(r.Annotations[serving.RevisionPreservedAnnotationKey], "true"):
		return Preserved, true
	case r.GetRoutingState() == servingv1.RoutingStateActive:
		return Routed, true
	case r.GetRoutingState() != servingv1.RoutingStateReserve:
		return NotReleased, true
	}
	return 0, false
}

// age judges a revision that nobody uses by its times alone.
func age(r *servingv1.Revision, g *config.GC, now time.Time) Verdict {
	if g.RetainSinceCreateTime == config.Disabled && g.RetainSinceLastActiveTime == config.Disabled {
		return Verdict{Cause: Ageless}
	}
	verdict := Verdict{Cause: Stale}
	if g.RetainSinceCreateTime != config.Disabled {
		verdict = Verdict{Cause: Created, Until: r.CreationTimestamp.Add(g.RetainSinceCreateTime)}
	}
	if g.RetainSinceLastActiveTime != config.Disabled {
		if until := lastActive(r).Add(g.RetainSinceLastActiveTime); until.After(verdict.Until) {
			verdict = Verdict{Cause: Active, Until: until}
		}
	}
	if !verdict.Until.After(now) {
		return Verdict{Cause: Stale}
	}
	return verdict
}

// older orders revisions by when they were last used. The times are whole seconds, so that the rest makes the order certain:
// each look must choose the same ones.
func older(a, b *servingv1.Revision) int {
	return cmp.Or(lastActive(a).Compare(lastActive(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// lastActive is when a revision lost its last route, or was created.
func lastActive(r *servingv1.Revision) time.Time {
	if t := r.GetRoutingStateModified(); !t.IsZero() {
		return t
	}
	return r.CreationTimestamp.Time
}
