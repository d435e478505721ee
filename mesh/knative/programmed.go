package knative

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// RouteProgrammed reports whether the proxies route by exactly the status of this Route, or why they do not, in words for its IngressReady
// condition. Once they do, it stays true for that status while proxies come and go: one that restarts takes up the same
// configuration before it serves. It may be called concurrently and does not modify the Route.
func (c *Controller) RouteProgrammed(route *servingv1.Route) (ok bool, why string) {
	want := c.compile(route)
	if len(want.route.GetVirtualHosts()) == 0 {
		return false, "the route has no traffic target yet"
	}
	if want.problem != "" {
		return false, want.problem
	}
	if c.programmed.starting() && ingressReady(route) {
		return true, ""
	}
	version, conflict := c.table.want(want)
	if conflict != "" {
		return false, conflict
	}
	ok, why = c.acked(want, version)
	switch {
	case ok:
		c.programmed.remember(want.key, version)
		return true, ""
	case c.programmed.at(want.key, version) && !strings.Contains(why, "rejected"):
		return true, ""
	}
	return false, why
}

// acked asks for the backends first, because a Route whose revision the mesh does not know is not of use though proxies accept it.
func (c *Controller) acked(want *compiled, version string) (ok bool, why string) {
	for _, backend := range want.backends {
		if ok, why := c.distributor.Acked(config.BackendType, backend, ""); !ok {
			return false, why
		}
	}
	return c.distributor.Acked(config.RouteType, want.route.GetName(), version)
}

// Changes delivers a Route, by namespace and name, each time the answer of RouteProgrammed for it may have changed. Names that change
// faster than the channel is read coalesce. There is one channel, for one reader.
func (c *Controller) Changes() <-chan event.GenericEvent { return c.changes }

// observe turns acknowledgements of resources into events of Routes and DomainMappings.
func (c *Controller) observe(ctx context.Context) error {
	routes := c.distributor.Watch(config.RouteType)
	defer routes.Close()
	backends := c.distributor.Watch(config.BackendType)
	defer backends.Close()
	mappings := c.distributor.Watch(config.RouteType)
	defer mappings.Close()
	group, ctx := errgroup.WithContext(ctx)
	// A watch for each channel: the reader of one must not make the other's wait.
	group.Go(func() error { return c.forward(ctx, routes, ownerOfKind(kindRoute)) })
	group.Go(func() error { return c.forward(ctx, mappings, ownerOfKind(kindMapping)) })
	group.Go(func() error { return c.forward(ctx, backends, c.table.usersOf) })
	return group.Wait()
}

// ownerOfKind gives the owner of a resource if it is of a kind.
func ownerOfKind(want kind) func(resource string) []owner {
	return func(resource string) []owner {
		if key, ok := ownerOf(resource); ok && key.kind == want {
			return []owner{key}
		}
		return nil
	}
}

func (c *Controller) forward(ctx context.Context, watch *distribute.Watch, keys func(name string) []owner) error {
	for {
		names, err := watch.Next(ctx)
		if err != nil {
			return nil //nolint:nilerr // the end of ctx is the way to stop
		}
		for _, name := range names {
			for _, key := range keys(name) {
				to, ev := c.changeOf(key)
				select {
				case <-ctx.Done():
					return nil
				case to <- ev:
				}
			}
		}
	}
}

// changeOf is the event of an object, and where it goes.
func (c *Controller) changeOf(key owner) (to chan<- event.GenericEvent, ev event.GenericEvent) {
	meta := metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
	if key.kind == kindMapping {
		return c.mappingChanges, event.GenericEvent{Object: &servingv1beta1.DomainMapping{ObjectMeta: meta}}
	}
	return c.changes, event.GenericEvent{Object: &servingv1.Route{ObjectMeta: meta}}
}

// ownerOf reverses config.KnativeRoute and config.DomainMappingRoute.
func ownerOf(resource string) (key owner, ok bool) {
	parts := strings.Split(resource, "/")
	if len(parts) != 3 {
		return owner{}, false
	}
	name := types.NamespacedName{Namespace: parts[1], Name: parts[2]}
	switch resource {
	case config.KnativeRoute(name.Namespace, name.Name):
		return owner{kindRoute, name}, true
	case config.DomainMappingRoute(name.Namespace, name.Name):
		return owner{kindMapping, name}, true
	}
	return owner{}, false
}

// programmed remembers by which version of each object the proxies were last known to route.
type programmed struct {
	// mu guards the rest.
	mu       sync.Mutex
	versions map[owner]string
	// complete is set when the Routes of the start have been taken over.
	complete bool
}

func newProgrammed() *programmed {
	return &programmed{versions: make(map[owner]string)}
}

// restore takes over a Route that was programmed before this process started: the proxies kept it.
func (p *programmed) restore(route *servingv1.Route, c *compiled) {
	if ingressReady(route) {
		p.remember(c.key, distribute.Version(c.route))
	}
}

func (p *programmed) restored() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.complete = true
}

func (p *programmed) starting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.complete
}

func (p *programmed) remember(key owner, version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.versions[key] = version
}

func (p *programmed) forget(key owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.versions, key)
}

func (p *programmed) at(key owner, version string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.versions[key] == version
}

// ingressReady says whether the Route's last written status calls it programmed.
func ingressReady(route *servingv1.Route) bool {
	return route.Status.ObservedGeneration == route.Generation &&
		route.Status.GetCondition(servingv1.RouteConditionIngressReady).IsTrue()
}
