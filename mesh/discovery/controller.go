package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"knative.dev/serving/pkg/apis/serving"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// Distributor takes what is discovered to the proxies. *distribute.Server is the one of the product.
type Distributor interface {
	// Apply makes a batch of changes that reaches each proxy as a whole. It does not wait for proxies.
	Apply(upserts []config.Resource, deletes []distribute.Key) error
	// Hold keeps everything from the proxies until it is released.
	Hold(who string) (release func())
}

var _ Distributor = (*distribute.Server)(nil)

// Options of AddToManager. The zero value publishes no listener and no Service.
type Options struct {
	// Listeners are published as they are.
	Listeners []*config.Listener
	// LocalGateway is the proxies' cluster-local HTTP listener as pods reach it. When valid, the Service weft-system/local-gateway
	// is kept, and leads to it.
	LocalGateway netip.AddrPort
	// APIServer, when valid, is where connections to the Service default/kubernetes go instead of its EndpointSlice. A single machine
	// needs it: its API server listens on loopback, which an EndpointSlice may not contain.
	APIServer netip.AddrPort
	// Logger is silent when nil.
	Logger *slog.Logger
}

// controller compiles informer events as they come.
type controller struct {
	distributor Distributor
	log         *slog.Logger
	gateway     *gateway

	// mu keeps the compilation of a change and its Apply together, so that no older state overtakes a newer one.
	mu        sync.Mutex
	revisions *revisions
	services  *services
}

// AddToManager adds discovery to a manager. It must be called before the distributor accepts proxies: they get nothing until
// everything that exists at the start has been compiled.
func AddToManager(mgr manager.Manager, distributor Distributor, opts Options) error {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &controller{
		distributor: distributor,
		log:         log,
		gateway:     newGateway(mgr.GetClient(), opts.LocalGateway, log),
		revisions:   newRevisions(),
		services:    newServices(opts.APIServer),
	}
	listeners := make([]config.Resource, 0, len(opts.Listeners))
	for _, l := range opts.Listeners {
		listeners = append(listeners, l)
	}
	release := distributor.Hold("discovery")
	if err := distributor.Apply(listeners, nil); err != nil {
		return fmt.Errorf("publishing listeners: %w", err)
	}
	synced, err := c.watch(mgr.GetCache())
	if err != nil {
		return fmt.Errorf("adding discovery: %w", err)
	}
	if err := mgr.Add(&firstPass{synced: synced, release: release}); err != nil {
		return fmt.Errorf("adding the first pass of discovery: %w", err)
	}
	if !opts.LocalGateway.IsValid() {
		return nil
	}
	if err := mgr.Add(manager.RunnableFunc(c.gateway.run)); err != nil {
		return fmt.Errorf("adding the keeper of the local gateway: %w", err)
	}
	return nil
}

// firstPass lets proxies have what is compiled when all that exists at the start is. It runs in each replica of the control plane, and
// not in the leader only, because each serves proxies.
type firstPass struct {
	synced  []<-chan struct{}
	release func()
}

// Start implements manager.Runnable.
func (p *firstPass) Start(ctx context.Context) error {
	for _, done := range p.synced {
		select {
		case <-ctx.Done():
			return nil
		case <-done:
		}
	}
	p.release()
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (p *firstPass) NeedLeaderElection() bool { return false }

// watch subscribes to the three kinds. The channels close when the objects that exist at the start have been handled.
func (c *controller) watch(informers cache.Cache) (synced []<-chan struct{}, err error) {
	for _, kind := range []struct {
		object client.Object
		label  string
		handle func(obj client.Object, gone bool)
	}{
		{object: &corev1.Pod{}, label: serving.RevisionLabelKey, handle: c.pod},
		{object: &corev1.Service{}, label: "", handle: c.service},
		{object: &discoveryv1.EndpointSlice{}, label: discoveryv1.LabelServiceName, handle: c.slice},
	} {
		informer, err := informers.GetInformer(context.Background(), kind.object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", kind.object, err)
		}
		registration, err := informer.AddEventHandler(handler(kind.label, kind.handle))
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", kind.object, err)
		}
		synced = append(synced, registration.HasSyncedChecker().Done())
	}
	return synced, nil
}

// handler reduces the events of an informer to the newest state of an object and whether it is gone. An object whose label changes is gone
// from where it was: people take the label off a Pod to look at it in peace.
func handler(label string, handle func(obj client.Object, gone bool)) toolscache.ResourceEventHandler {
	object := func(obj any) (client.Object, bool) {
		if last, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		result, ok := obj.(client.Object)
		return result, ok
	}
	put := func(obj any) {
		if o, ok := object(obj); ok {
			handle(o, false)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: put,
		UpdateFunc: func(old, obj any) {
			before, ok := object(old)
			after, also := object(obj)
			if ok && also && before.GetLabels()[label] != after.GetLabels()[label] {
				handle(before, true)
			}
			put(obj)
		},
		DeleteFunc: func(obj any) {
			if o, ok := object(obj); ok {
				handle(o, true)
			}
		},
	}
}

func (c *controller) pod(obj client.Object, gone bool) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	rev, ok := revisionOf(pod)
	if !ok {
		return
	}
	name := pod.Name
	if gone {
		pod = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoints, empty := c.revisions.put(rev, name, pod)
	switch {
	case endpoints != nil:
		c.apply([]config.Resource{endpoints}, nil)
	case empty != nil:
		c.apply(nil, []distribute.Key{*empty})
	}
}

func (c *controller) service(obj client.Object, gone bool) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return
	}
	key := client.ObjectKeyFromObject(svc)
	if key == gatewayKey {
		c.gateway.changed()
	}
	if gone {
		svc = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(c.services.putService(key, svc))
}

func (c *controller) slice(obj client.Object, gone bool) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
		return
	}
	key := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	if key == gatewayKey {
		c.gateway.changed()
	}
	name := slice.Name
	if gone {
		slice = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(c.services.putSlice(key, name, slice))
}

// apply logs what cannot be encoded, because nothing but a change of the object can help, and that comes back here. The caller holds mu.
func (c *controller) apply(upserts []config.Resource, deletes []distribute.Key) {
	if len(upserts) == 0 && len(deletes) == 0 {
		return
	}
	if err := c.distributor.Apply(upserts, deletes); err != nil {
		c.log.Error("object cannot be sent to proxies", "error", err)
	}
}
