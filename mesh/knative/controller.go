package knative

import (
	"context"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// Distributor takes what is compiled to the proxies. *distribute.Server is the one of the product.
type Distributor interface {
	// Apply makes a batch of changes that reaches each proxy as a whole. It does not wait for proxies.
	Apply(upserts []config.Resource, deletes []distribute.Key) error
	// Acked reports whether every connected proxy holds this version of a resource, or why not.
	Acked(typeURL, name, version string) (bool, string)
	// Watch collects names for which the answer of Acked may have changed.
	Watch(typeURL string) *distribute.Watch
	// Hold keeps everything from the proxies until it is released.
	Hold(who string) (release func())
}

var _ Distributor = (*distribute.Server)(nil)

// Options of AddToManager. The zero value works.
type Options struct {
	Naming Naming
	// Policy returns the present one, the zero value when nil. It may be called concurrently.
	Policy func() Policy
	// Changes returns a new channel that gets an event after each change of what Naming or Policy answer. Nil means that they never change.
	Changes func() <-chan event.GenericEvent
}

// Controller compiles Routes and DomainMappings as they change.
type Controller struct {
	client      client.Client
	distributor Distributor
	naming      Naming
	policy      func() Policy
	table       *table
	programmed  *programmed
	// changes and mappingChanges are of Routes and of DomainMappings.
	changes, mappingChanges chan event.GenericEvent
}

// AddToManager adds the compilers of Routes and of DomainMappings to a manager. It must be called before the distributor accepts proxies:
// they get nothing until all that exist at the start are compiled.
func AddToManager(mgr manager.Manager, distributor Distributor, opts Options) (*Controller, error) {
	c := newController(mgr.GetClient(), distributor, opts)
	b := ctrl.NewControllerManagedBy(mgr).
		Named("mesh-knative").
		For(&servingv1.Route{}).
		Watches(&servingv1.Revision{}, handler.EnqueueRequestsFromMapFunc(c.routesOf)).
		WithOptions(controller.Options{NeedLeaderElection: new(false)})
	if opts.Changes != nil {
		b = b.WatchesRawSource(source.Channel(opts.Changes(), c.every(func() client.ObjectList { return &servingv1.RouteList{} })))
	}
	if err := b.Complete(c); err != nil {
		return nil, fmt.Errorf("adding the compiler of routes: %w", err)
	}
	if err := c.addMappings(mgr, opts.Changes); err != nil {
		return nil, err
	}
	release := distributor.Hold("knative routes")
	if err := mgr.Add(everywhere(func(ctx context.Context) error {
		defer release()
		return c.first(ctx)
	})); err != nil {
		return nil, fmt.Errorf("adding the first pass over routes: %w", err)
	}
	if err := mgr.Add(everywhere(c.observe)); err != nil {
		return nil, fmt.Errorf("adding the observer of acknowledgements: %w", err)
	}
	return c, nil
}

// everywhere is a part that runs in each replica of the control plane and not in the leader only: each serves proxies, and none of this
// writes to the API.
type everywhere func(ctx context.Context) error

// Start implements manager.Runnable.
func (e everywhere) Start(ctx context.Context) error { return e(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (everywhere) NeedLeaderElection() bool { return false }

func newController(cl client.Client, distributor Distributor, opts Options) *Controller {
	if opts.Policy == nil {
		opts.Policy = func() Policy { return Policy{} }
	}
	return &Controller{
		client:         cl,
		distributor:    distributor,
		naming:         opts.Naming,
		policy:         opts.Policy,
		table:          newTable(),
		programmed:     newProgrammed(),
		changes:        make(chan event.GenericEvent),
		mappingChanges: make(chan event.GenericEvent),
	}
}

// first compiles all Routes and DomainMappings that exist. The manager runs it after its caches have synced.
func (c *Controller) first(ctx context.Context) error {
	var routes servingv1.RouteList
	if err := c.client.List(ctx, &routes); err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	var mappings servingv1beta1.DomainMappingList
	if err := c.client.List(ctx, &mappings); err != nil {
		return fmt.Errorf("listing domain mappings: %w", err)
	}
	for i := range routes.Items {
		c.programmed.restore(&routes.Items[i], c.compile(&routes.Items[i]))
	}
	for i := range mappings.Items {
		c.programmed.restoreMapping(&mappings.Items[i])
	}
	c.programmed.restored()
	for i := range routes.Items {
		if _, err := c.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&routes.Items[i])}); err != nil {
			return err
		}
	}
	for i := range mappings.Items {
		if err := c.reconcileMapping(ctx, client.ObjectKeyFromObject(&mappings.Items[i])); err != nil {
			return err
		}
	}
	return nil
}

// every maps any event to all objects of a kind.
func (c *Controller) every(list func() client.ObjectList) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		objects := list()
		if err := c.client.List(ctx, objects, client.UnsafeDisableDeepCopy); err != nil {
			// The cache answers from memory; it fails only when it is being stopped.
			return nil
		}
		requests := make([]reconcile.Request, 0, apimeta.LenList(objects))
		_ = apimeta.EachListItem(objects, func(o runtime.Object) error {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o.(client.Object))})
			return nil
		})
		return requests
	})
}

// routesOf maps a Revision to the Routes that send traffic to it.
func (c *Controller) routesOf(_ context.Context, rev client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, key := range c.table.usersOf(config.RevisionBackend(rev.GetNamespace(), rev.GetName())) {
		requests = append(requests, reconcile.Request{NamespacedName: key.NamespacedName})
	}
	return requests
}

var _ reconcile.Reconciler = (*Controller)(nil)

// compile is the part of a Route's compilation that does not look at other Routes.
func (c *Controller) compile(route *servingv1.Route) *compiled {
	policy := c.policy()
	result := &compiled{
		key:     owner{kindRoute, client.ObjectKeyFromObject(route)},
		created: route.CreationTimestamp.Time,
		route:   Compile(route, c.naming, policy),
	}
	if _, err := policy.redirectPort(route.Annotations); err != nil {
		result.problem = err.Error()
	}
	seen := make(map[string]bool)
	for _, vh := range result.route.GetVirtualHosts() {
		for _, rule := range vh.GetRules() {
			for _, split := range rule.GetSplits() {
				if !seen[split.GetBackend()] {
					seen[split.GetBackend()] = true
					result.backends = append(result.backends, split.GetBackend())
				}
			}
		}
	}
	return result
}
