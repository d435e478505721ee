package provision

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
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

// Distributor takes certificates to the proxies. *distribute.Server is the one of the product.
type Distributor interface {
	// Apply makes a batch of changes. It does not wait for proxies.
	Apply(upserts []config.Resource, deletes []distribute.Key) error
	// Acked reports whether every connected proxy holds a resource, or why not.
	Acked(typeURL, name, version string) (bool, string)
	// Watch collects names for which the answer of Acked may have changed.
	Watch(typeURL string) *distribute.Watch
	// Hold keeps everything from the proxies until it is released.
	Hold(who string) (release func())
}

var _ Distributor = (*distribute.Server)(nil)

// Authority signs certificates. *authority.Authority is the one of the product.
type Authority interface {
	// Permits reports whether clients believe it for a host. It may be called concurrently.
	Permits(host string) bool
	// Issue makes a certificate, whose Leaf is set.
	Issue(dnsNames ...string) (*tls.Certificate, error)
}

// Options of AddToManager.
type Options struct {
	// Authority issues the certificates that no Secret is named for. Without one there are only those of Secrets.
	Authority Authority
	// ClusterDomain is the suffix of hosts that exist in the cluster only, "cluster.local" by default. They get no certificate.
	ClusterDomain string
	// Log gets each certificate that is issued or cannot be used; nothing is logged when nil.
	Log *slog.Logger
}

// Controller provides certificates. Its methods may be called concurrently.
type Controller struct {
	objects     client.Reader
	secrets     client.Reader
	distributor Distributor
	authority   Authority
	local       string // the suffix of cluster-local hosts
	log         *slog.Logger
	now         func() time.Time

	wants  *table
	news   *news
	routes chan event.GenericEvent
	// mappings are the same as routes for DomainMappings.
	mappings chan event.GenericEvent

	// mu guards provided.
	mu       sync.Mutex
	provided map[string]*provided
}

// provided is what is presented under the name of a certificate. It is not changed once it is in the map.
type provided struct {
	// certificate is nil when there has never been one to use.
	certificate *tls.Certificate
	// problem says what is wrong, nil when nothing is.
	problem *problem
}

// AddToManager adds the provider to a manager. It must be called before the distributor accepts proxies: they get nothing until the
// certificates of all that exists at the start are there.
func AddToManager(mgr manager.Manager, distributor Distributor, o Options) (*Controller, error) {
	c := newController(mgr.GetClient(), mgr.GetAPIReader(), distributor, o)
	watched, err := watchedSecrets(mgr)
	if err != nil {
		return nil, err
	}
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err = ctrl.NewControllerManagedBy(mgr).
		Named("mesh-provision").
		Watches(&servingv1.Route{}, c.follow()).
		Watches(&servingv1beta1.DomainMapping{}, c.follow()).
		WatchesRawSource(source.TypedKind[client.Object](watched, secret, handler.EnqueueRequestsFromMapFunc(c.ofSecret))).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(c)
	if err != nil {
		return nil, fmt.Errorf("adding the provider of certificates: %w", err)
	}
	release := distributor.Hold("certificates")
	if err := mgr.Add(everywhere(func(ctx context.Context) error {
		defer release()
		return c.first(ctx)
	})); err != nil {
		return nil, fmt.Errorf("adding the first pass over certificates: %w", err)
	}
	if err := mgr.Add(everywhere(c.observe)); err != nil {
		return nil, fmt.Errorf("adding the observer of certificates: %w", err)
	}
	return c, nil
}

func newController(objects, secrets client.Reader, distributor Distributor, o Options) *Controller {
	if o.ClusterDomain == "" {
		o.ClusterDomain = "cluster.local"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Controller{
		objects: objects, secrets: secrets, distributor: distributor, authority: o.Authority, local: ".svc." + o.ClusterDomain, log: o.Log, now: time.Now,
		wants: newTable(), news: newNews(), routes: make(chan event.GenericEvent), mappings: make(chan event.GenericEvent),
		provided: make(map[string]*provided),
	}
}

// watchedSecrets knows which Secrets of type kubernetes.io/tls exist and when they change, and nothing of what is in them.
func watchedSecrets(mgr manager.Manager) (cache.Cache, error) {
	watched, err := cache.New(mgr.GetConfig(), cache.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {Field: fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS))},
		},
		DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return nil, fmt.Errorf("watching secrets: %w", err)
	}
	if err := mgr.Add(watched); err != nil {
		return nil, fmt.Errorf("watching secrets: %w", err)
	}
	return watched, nil
}

// everywhere is a part that runs in each replica of the control plane and not in the leader only: each serves proxies, and none of this
// writes to the API.
type everywhere func(ctx context.Context) error

// Start implements manager.Runnable.
func (e everywhere) Start(ctx context.Context) error { return e(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (everywhere) NeedLeaderElection() bool { return false }

// follow keeps what Routes and DomainMappings want, and asks for the certificates to which that makes a difference.
func (c *Controller) follow() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	wants := func(o client.Object, q queue) {
		for _, name := range c.wants.set(c.wantsOf(o)) {
			q.Add(requestFor(name))
		}
	}
	return handler.Funcs{
		CreateFunc:  func(_ context.Context, e event.CreateEvent, q queue) { wants(e.Object, q) },
		UpdateFunc:  func(_ context.Context, e event.UpdateEvent, q queue) { wants(e.ObjectNew, q) },
		GenericFunc: func(_ context.Context, e event.GenericEvent, q queue) { wants(e.Object, q) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
			o, _ := c.wantsOf(e.Object)
			for _, name := range c.wants.set(o, nil) {
				q.Add(requestFor(name))
			}
		},
	}
}

// requestFor names a certificate. There is one kind of request, and its namespace is empty.
func requestFor(certificate string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: certificate}}
}

// ofSecret maps a Secret to its certificate, if anybody wants that.
func (c *Controller) ofSecret(_ context.Context, secret client.Object) []reconcile.Request {
	name := config.SecretCertificate(secret.GetNamespace(), secret.GetName())
	if !c.wants.wanted(name) {
		return nil
	}
	return []reconcile.Request{requestFor(name)}
}

// first provides for all that exists. The manager runs it after its caches have synced.
func (c *Controller) first(ctx context.Context) error {
	var routes servingv1.RouteList
	if err := c.objects.List(ctx, &routes, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	for i := range routes.Items {
		c.wants.add(c.wantsOf(&routes.Items[i]))
	}
	var mappings servingv1beta1.DomainMappingList
	if err := c.objects.List(ctx, &mappings, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing domain mappings: %w", err)
	}
	for i := range mappings.Items {
		c.wants.add(c.wantsOf(&mappings.Items[i]))
	}
	for _, name := range c.wants.certificates() {
		if _, err := c.Reconcile(ctx, requestFor(name)); err != nil {
			return err
		}
	}
	return nil
}
