package gc

import (
	"fmt"
	"slices"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

// Explain says in a sentence what becomes of a revision and why: "kept: ..." or "deleted: ...". peers are all revisions of its
// configuration c; whether r is among them does not matter. It is for whoever asks why a revision is still there.
func Explain(r *servingv1.Revision, c *servingv1.Configuration, peers []servingv1.Revision, g *config.GC, now time.Time) string {
	i := slices.IndexFunc(peers, func(p servingv1.Revision) bool { return p.Name == r.Name })
	if i < 0 {
		peers, i = append(slices.Clone(peers), *r), len(peers)
	}
	v := Verdicts(c, peers, g, now)[i]
	if v.Delete() {
		return "deleted: " + why(r, v, g, now)
	}
	return "kept: " + why(r, v, g, now)
}

// why is the reason of a verdict, with the key of config-gc that decides.
func why(r *servingv1.Revision, v Verdict, g *config.GC, now time.Time) string {
	switch v.Cause {
	case LatestReady:
		return "it is the latest ready revision of its configuration"
	case Wanted:
		return "it is the revision that its configuration asks for"
	case Preserved:
		return fmt.Sprintf("the annotation %s asks for it", serving.RevisionPreservedAnnotationKey)
	case Routed:
		return fmt.Sprintf("it belongs to route %s", r.Annotations[serving.RoutesAnnotationKey])
	case NotReleased:
		return "no route has used it yet"
	case Minimum:
		return fmt.Sprintf("min-non-active-revisions keeps %d revisions without a route", g.MinNonActiveRevisions)
	case Ageless:
		return "retain-since-create-time and retain-since-last-active-time are disabled"
	case Created:
		return fmt.Sprintf("retain-since-create-time keeps it until %s", v.Until.UTC().Format(time.RFC3339))
	case Active:
		return fmt.Sprintf("retain-since-last-active-time keeps it until %s", v.Until.UTC().Format(time.RFC3339))
	case Stale:
		return fmt.Sprintf("it was created %s ago and has had no route for %s", since(r.CreationTimestamp.Time, now), since(lastActive(r), now))
	case Excess:
		return fmt.Sprintf("max-non-active-revisions allows %d revisions without a route, and it is one of the oldest", g.MaxNonActiveRevisions)
	}
	return "unknown"
}

func since(t, now time.Time) time.Duration { return now.Sub(t).Round(time.Second) }
