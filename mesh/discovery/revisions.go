package discovery

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// revisions are the endpoints of every revision that has a Pod. It is not safe for concurrent use.
type revisions struct {
	endpoints map[types.NamespacedName]map[string]*config.Endpoint
}

func newRevisions() *revisions {
	return &revisions{endpoints: make(map[types.NamespacedName]map[string]*config.Endpoint)}
}

// put takes the newest state of a Pod, which is nil after its deletion, and returns what changes by it: Endpoints to send, or the name of
// Endpoints that are empty now. Both are nil when nothing changes, as for most updates of a Pod.
func (r *revisions) put(rev types.NamespacedName, pod string, state *corev1.Pod) (*config.Endpoints, *distribute.Key) {
	var next *config.Endpoint
	if state != nil {
		next = PodEndpoint(state)
	}
	pods := r.endpoints[rev]
	if old := pods[pod]; equal(old, next) {
		return nil, nil
	}
	name := config.RevisionBackend(rev.Namespace, rev.Name)
	if next == nil {
		delete(pods, pod)
		if len(pods) == 0 {
			delete(r.endpoints, rev)
			return nil, &distribute.Key{TypeURL: config.EndpointsType, Name: name}
		}
	} else {
		if pods == nil {
			pods = make(map[string]*config.Endpoint, 1)
			r.endpoints[rev] = pods
		}
		pods[pod] = next
	}
	return &config.Endpoints{Name: name, Endpoints: slices.SortedFunc(maps.Values(pods), byPod)}, nil
}

func byPod(a, b *config.Endpoint) int { return cmp.Compare(a.GetPod(), b.GetPod()) }

func equal(a, b *config.Endpoint) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.GetAddress() == b.GetAddress() && a.GetPort() == b.GetPort() && a.GetDraining() == b.GetDraining()
}
