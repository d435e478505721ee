package labeler

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Used are the names of the revisions and configurations that a route uses.
type Used struct {
	Revisions, Configurations map[string]bool
}

// Lookup finds objects in the route's namespace. Both return nil for one that does not exist.
type Lookup struct {
	Revision      func(name string) *servingv1.Revision
	Configuration func(name string) *servingv1.Configuration
}

// Uses returns what a route uses: where its traffic goes now, where its spec sends it, and the revision that is about to
// become the latest one, so that it is not taken for unreachable in the moment in which it becomes ready.
func Uses(r *servingv1.Route, find Lookup) Used {
	used := Used{Revisions: map[string]bool{}, Configurations: map[string]bool{}}
	for _, traffic := range [][]servingv1.TrafficTarget{r.Status.Traffic, r.Spec.Traffic} {
		for i := range traffic {
			used.add(&traffic[i], find)
		}
	}
	return used
}

func (u Used) add(target *servingv1.TrafficTarget, find Lookup) {
	configuration := target.ConfigurationName
	if target.RevisionName != "" {
		revision := find.Revision(target.RevisionName)
		if revision == nil {
			return
		}
		u.Revisions[revision.Name] = true
		if owner := metav1.GetControllerOf(revision); owner != nil && owner.Kind == "Configuration" {
			configuration = owner.Name
		}
	}
	if configuration == "" {
		return
	}
	c := find.Configuration(configuration)
	if c == nil {
		return
	}
	u.Configurations[c.Name] = true
	if latest := c.Status.LatestCreatedRevisionName; latest != "" && target.LatestRevision != nil && *target.LatestRevision {
		u.Revisions[latest] = true
	}
}

// note writes into the metadata of a revision or configuration whether the route uses it.
func note(o metav1.Object, route string, used bool) {
	list := o.GetAnnotations()[serving.RoutesAnnotationKey]
	if used {
		list = Add(list, route)
	} else {
		list = Remove(list, route)
	}
	annotations := maps.Clone(o.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[serving.RoutesAnnotationKey] = list
	if list == "" {
		delete(annotations, serving.RoutesAnnotationKey)
	}
	o.SetAnnotations(annotations)
}

// noteState derives the routing state of a revision from the routes that are noted on it.
func noteState(r *servingv1.Revision, now time.Time) {
	state := servingv1.RoutingStateReserve
	if len(Routes(r.Annotations)) > 0 {
		state = servingv1.RoutingStateActive
	}
	if r.GetRoutingState() != state {
		r.SetRoutingState(state, now)
	}
}
