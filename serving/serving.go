// Package serving is the control plane of serving.knative.dev: a Service becomes a Configuration and a Route, a Configuration
// becomes Revisions, a Revision becomes a Deployment and a PodAutoscaler, and a Route says which revisions get which part of
// the traffic. cmd/weft and cmd/controller call it. The mesh and the autoscaler are not called from here: they read Routes and
// PodAutoscalers and write what becomes of them; only whether a Route is programmed is asked by an interface.
package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/weft-dev/weft/internal/events"
	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/configuration"
	"github.com/weft-dev/weft/serving/digest"
	"github.com/weft-dev/weft/serving/domainmapping"
	"github.com/weft-dev/weft/serving/gc"
	"github.com/weft-dev/weft/serving/labeler"
	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/revision"
	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/service"
)

// Options of AddToManager. Only Mesh is required.
type Options struct {
	// Mesh says which routes and domain mappings are programmed.
	Mesh Mesh
	// Certificates provides for https. Without it, external-domain-tls has nothing to rest on.
	Certificates Certificates
	// Config is the administrator's configuration; nil means the defaults, for ever.
	Config Config
	// DefaultDomain is the suffix of public hosts when Config is nil, "localhost" by default. A Config has its own.
	DefaultDomain string
	// ExternalPort is the gateway's, as clients see it; 0 and 80 leave it out of URLs.
	ExternalPort int
	// ExternalHTTPSPort is the same for https; 0 and 443 leave it out.
	ExternalHTTPSPort int
	// LocalGatewayHost is the host that names of routes lead to in the cluster; route.DefaultLocalGateway by default.
	LocalGatewayHost string
	// Digests says how tags of images are resolved to digests; its Reader and Config are filled in. Nil leaves the images of
	// revisions as they are.
	Digests *digest.Options
	// Workers is the number of objects of one kind that are reconciled at the same time, 8 by default. They wait for the API
	// server most of the time.
	Workers int
	// Log gets what the controllers do; the manager's logger by default.
	Log *slog.Logger
}

// Mesh carries the traffic.
type Mesh interface {
	route.Mesh
	domainmapping.Mesh
}

// Certificates provides hosts with certificates.
type Certificates interface {
	route.Certificates
	domainmapping.Certificates
}

// Config is the live configuration. *config.Store is the one of the product.
type Config interface {
	// Load returns the configuration in force, which nobody changes. It may be called concurrently and must not block.
	Load() *config.Snapshot
	// Changes returns a channel that gets an event after a change of one of the named config maps.
	Changes(names ...string) <-chan event.GenericEvent
}

var _ Config = (*config.Store)(nil)

const (
	// DefaultDomain is the suffix of public hosts where nothing else is configured.
	DefaultDomain = "localhost"

	defaultWorkers = 8
	// firstRetry and lastRetry bound the back-off of an object whose reconciliation fails.
	firstRetry = 5 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// AddToScheme adds all types that the controllers read and write.
func AddToScheme(scheme *runtime.Scheme) error {
	return errors.Join(
		corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme),
		servingv1.AddToScheme(scheme), servingv1beta1.AddToScheme(scheme), autoscalingv1alpha1.AddToScheme(scheme),
		netv1alpha1.AddToScheme(scheme),
	)
}

// AddToManager runs the controllers of serving with the manager, whose scheme has the types of AddToScheme. It must be called
// before the manager starts.
func AddToManager(mgr manager.Manager, o Options) error {
	if o.Mesh == nil {
		return errors.New("adding serving: a mesh is required")
	}
	if o.Config == nil {
		if o.DefaultDomain == "" {
			o.DefaultDomain = DefaultDomain
		}
		o.Config = config.NewStore(config.Options{Domains: config.Domains{Default: o.DefaultDomain}})
	}
	// The indexes belong to the cache, which outlives this call; the context only bounds the wait for it, and there is none
	// before the manager starts.
	ctx := context.Background()
	for _, add := range []func(context.Context, client.FieldIndexer) error{
		configuration.AddIndexes, revision.AddIndexes, route.AddIndexes, labeler.AddIndexes, domainmapping.AddIndexes,
	} {
		if err := add(ctx, mgr.GetFieldIndexer()); err != nil {
			return err
		}
	}
	for _, add := range []func(manager.Manager, Options) error{addServices, addConfigurations, addRevisions, addRoutes, addLabeler, addDomainMappings, addCollector} {
		if err := add(mgr, o); err != nil {
			return err
		}
	}
	return nil
}

func addServices(mgr manager.Manager, o Options) error {
	return wrap(service.Name, service.AddToManager(mgr, service.New(store(mgr, service.Name)), o.controller()))
}

func addConfigurations(mgr manager.Manager, o Options) error {
	r := configuration.New(store(mgr, configuration.Name), time.Now)
	return wrap(configuration.Name, configuration.AddToManager(mgr, r, o.controller()))
}

func addRevisions(mgr manager.Manager, o Options) error {
	s := store(mgr, revision.Name)
	ro := revision.Options{Store: s, Config: o.Config.Load, Now: time.Now}
	var sources []source.Source
	if o.Digests != nil {
		options := *o.Digests
		options.Reader, options.Config = mgr.GetAPIReader(), o.Config.Load
		resolver := digest.New(options)
		if err := mgr.Add(resolver); err != nil {
			return fmt.Errorf("adding the resolver of digests: %w", err)
		}
		ro.Digests = resolver
		sources = append(sources, source.Channel(resolver.Changes(), &handler.EnqueueRequestForObject{}))
	}
	changes := o.Config.Changes(config.AutoscalerName, config.DefaultsName, config.DeploymentName, config.FeaturesName, config.ObservabilityName)
	all := every(s, func() client.ObjectList { return &servingv1.RevisionList{} })
	sources = append(sources, source.Channel(changes, all))
	return wrap(revision.Name, revision.AddToManager(mgr, revision.New(ro), o.controller(), sources...))
}

func addRoutes(mgr manager.Manager, o Options) error {
	s := store(mgr, route.Name)
	r := route.New(route.Options{Store: s, Settings: o.settings, Mesh: o.Mesh, Certificates: o.Certificates, Now: time.Now})
	changes := o.Config.Changes(config.NetworkName, config.DomainName)
	all := every(s, func() client.ObjectList { return &servingv1.RouteList{} })
	sources := []source.Source{source.Channel(changes, all)}
	if o.Certificates != nil {
		sources = append(sources, source.Channel(o.Certificates.CertificateChanges(), &handler.EnqueueRequestForObject{}))
	}
	return wrap(route.Name, route.AddToManager(mgr, r, o.controller(), sources...))
}

func addDomainMappings(mgr manager.Manager, o Options) error {
	s := store(mgr, domainmapping.Name)
	changes := o.Config.Changes(config.NetworkName)
	all := every(s, func() client.ObjectList { return &servingv1beta1.DomainMappingList{} })
	r := domainmapping.New(s, o.settings, o.Mesh, o.Certificates)
	sources := []source.Source{source.Channel(changes, all)}
	if o.Certificates != nil {
		sources = append(sources, source.Channel(o.Certificates.MappingCertificateChanges(), &handler.EnqueueRequestForObject{}))
	}
	return wrap(domainmapping.Name, domainmapping.AddToManager(mgr, r, o.controller(), sources...))
}

// settings are the present ones of whatever has a URL.
func (o Options) settings() route.Settings {
	return route.Settings{Config: o.Config.Load(), Port: o.ExternalPort, HTTPSPort: o.ExternalHTTPSPort, LocalGateway: o.LocalGatewayHost}
}

func addLabeler(mgr manager.Manager, o Options) error {
	s := store(mgr, labeler.Name)
	finder := route.Finder{Reader: s}
	return wrap(labeler.Name, labeler.AddToManager(mgr, labeler.New(s, time.Now), o.controller(), finder.OfConfiguration, finder.OfRevision))
}

func addCollector(mgr manager.Manager, o Options) error {
	s := store(mgr, gc.Name)
	all := every(s, func() client.ObjectList { return &servingv1.ConfigurationList{} })
	changes := source.Channel(o.Config.Changes(config.GCName), all)
	return wrap(gc.Name, gc.AddToManager(mgr, gc.New(s, o.Config.Load, time.Now), o.controller(), changes))
}

// store gives each controller its own name in Events, as upstream has them.
func store(mgr manager.Manager, name string) owned.Store {
	return owned.Store{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: events.NewRecorder(mgr, name+"-controller")}
}

func (o Options) controller() controller.Options {
	workers := o.Workers
	if workers == 0 {
		workers = defaultWorkers
	}
	options := controller.Options{
		MaxConcurrentReconciles: workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
	}
	if o.Log != nil {
		options.Logger = logr.FromSlogHandler(o.Log.Handler())
	}
	return options
}

// every maps any event to all objects of a kind.
func every(reader client.Reader, list func() client.ObjectList) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		objects := list()
		if err := reader.List(ctx, objects, client.UnsafeDisableDeepCopy); err != nil {
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

func wrap(name string, err error) error {
	if err != nil {
		return fmt.Errorf("adding controller %q: %w", name, err)
	}
	return nil
}
