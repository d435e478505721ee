package route

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/status"
)

// kindPlaceholder is how events and errors name a placeholder Service.
const kindPlaceholder = "placeholder service"

// Reconciler resolves the traffic of Routes. It is safe for concurrent use on different Routes.
type Reconciler struct {
	store    owned.Store
	settings func() Settings
	mesh     Mesh
	// certificates is nil where nothing provides them.
	certificates Certificates
	now          func() time.Time
}

// Options are what a Reconciler works with.
type Options struct {
	// Store has the indexes of AddIndexes in its cache.
	Store owned.Store
	// Settings returns the present ones; it is called once per reconciliation.
	Settings func() Settings
	Mesh     Mesh
	// Certificates may be nil: then external-domain-tls has nothing to rest on.
	Certificates Certificates
	// Now is the clock of rollouts.
	Now func() time.Time
}

// New returns a reconciler.
func New(o Options) *Reconciler {
	return &Reconciler{store: o.Store, settings: o.Settings, mesh: o.Mesh, certificates: o.Certificates, now: o.Now}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	return status.Reconcile(ctx, r.store, req.NamespacedName, r.reconcile)
}

func (r *Reconciler) reconcile(ctx context.Context, route *servingv1.Route) (reconcile.Result, error) {
	settings := r.settings()
	before := route.Status.DeepCopy()
	if route.Generation != before.ObservedGeneration {
		// An error below must not leave the readiness of the last generation standing.
		route.Status.MarkIngressNotConfigured()
	}
	placeholders, err := r.placeholders(ctx, route)
	if err != nil {
		return reconcile.Result{}, err
	}
	programmed, why := r.programmed(route)
	assigned, wait, err := r.assign(ctx, route, settings, placeholders, programmed)
	if !assigned || err != nil {
		return reconcile.Result{}, err
	}
	if err := r.hold(ctx, route, settings, placeholders); err != nil {
		// Nobody must follow traffic of a route whose name is not its own.
		route.Status.Traffic, route.Status.Annotations = before.Traffic, before.Annotations
		return reconcile.Result{}, err
	}
	r.certify(route, before, settings)
	reflectMesh(route, before, programmed, why)
	return reconcile.Result{RequeueAfter: wait}, nil
}

// assign decides the URLs and the traffic of the route, and returns whether all traffic has a revision to go to, and after
// what time the next step of a rollout is due. programmed says whether the mesh does what the status has said so far.
func (r *Reconciler) assign(
	ctx context.Context, route *servingv1.Route, s Settings, placeholders map[string]*corev1.Service, programmed bool,
) (assigned bool, wait time.Duration, err error) {
	referred, err := r.referred(ctx, route)
	if err != nil {
		route.Status.MarkUnknownTrafficError(status.Escape(err.Error()))
		return false, 0, err
	}
	targets, problem := Resolve(route, referred)
	if problem == nil {
		targets, wait = rollOut(route, targets, referred, moment{now: r.now(), duration: s.rolloutDuration(route), programmed: programmed})
	}
	if err := locate(route, targets, s, placeholders); err != nil {
		route.Status.MarkRevisionTargetTrafficError("ErrorConfig", status.Escape(err.Error()))
		return false, 0, err
	}
	if problem != nil {
		problem.Mark(&route.Status)
		return false, 0, nil
	}
	host, err := s.LocalHost(route, "")
	if err != nil {
		return false, 0, err
	}
	route.Status.Address = &duckv1.Addressable{URL: apis.HTTP(host)}
	route.Status.Traffic = targets
	route.Status.MarkTrafficAssigned()
	return true, wait, nil
}

// locate sets the URL of the route and those of its tagged targets.
func locate(route *servingv1.Route, targets []servingv1.TrafficTarget, s Settings, placeholders map[string]*corev1.Service) error {
	where := func(tag string) (*apis.URL, error) {
		local, err := s.Local(route, tag, placeholders)
		if err != nil {
			return nil, err
		}
		return s.URL(route, tag, local)
	}
	url, err := where("")
	if err != nil {
		return err
	}
	for i := range targets {
		if targets[i].Tag == "" {
			continue
		}
		if targets[i].URL, err = where(targets[i].Tag); err != nil {
			return err
		}
	}
	route.Status.URL = url
	return nil
}

// referred reads what the route's traffic can mean, and where it goes now, from which a rollout starts.
func (r *Reconciler) referred(ctx context.Context, route *servingv1.Route) (Referred, error) {
	out := Referred{Configurations: map[string]*servingv1.Configuration{}, Revisions: map[string]*servingv1.Revision{}}
	var configurations, revisions []string
	for i := range route.Spec.Traffic {
		configurations = append(configurations, route.Spec.Traffic[i].ConfigurationName)
		revisions = append(revisions, route.Spec.Traffic[i].RevisionName)
	}
	for i := range route.Status.Traffic {
		revisions = append(revisions, route.Status.Traffic[i].RevisionName)
	}
	if err := readAll(ctx, r.store, route.Namespace, configurations, out.Configurations); err != nil {
		return out, err
	}
	for _, c := range out.Configurations {
		revisions = append(revisions, c.Status.LatestReadyRevisionName)
	}
	if err := readAll(ctx, r.store, route.Namespace, revisions, out.Revisions); err != nil {
		return out, err
	}
	configurations = nil
	for _, revision := range out.Revisions {
		configurations = append(configurations, revision.Labels[serving.ConfigurationLabelKey])
	}
	return out, readAll(ctx, r.store, route.Namespace, configurations, out.Configurations)
}

// readAll adds the objects of these names to those in into. They are the cache's and must not be changed. Names that are
// empty, known or of nothing are left out.
func readAll[T any, P interface {
	*T
	client.Object
}](ctx context.Context, c client.Reader, namespace string, names []string, into map[string]P) error {
	for _, name := range names {
		if name == "" || into[name] != nil {
			continue
		}
		o := P(new(T))
		err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("reading %T %q: %w", o, name, err)
		default:
			into[name] = o
		}
	}
	return nil
}

// placeholders returns the Services that say to be the route's, by name.
func (r *Reconciler) placeholders(ctx context.Context, route *servingv1.Route) (map[string]*corev1.Service, error) {
	var services corev1.ServiceList
	if err := r.store.List(ctx, &services, client.InNamespace(route.Namespace), client.MatchingFields{servicesByRoute: route.Name},
		client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing placeholder services: %w", err)
	}
	out := make(map[string]*corev1.Service, len(services.Items))
	for i := range services.Items {
		out[services.Items[i].Name] = &services.Items[i]
	}
	return out, nil
}

// hold keeps one placeholder Service for the route and one per tag, and no others.
func (r *Reconciler) hold(ctx context.Context, route *servingv1.Route, s Settings, present map[string]*corev1.Service) error {
	wanted := map[string]bool{}
	for _, tag := range tags(route) {
		want, err := s.Placeholder(route, tag)
		if err != nil {
			return err
		}
		wanted[want.Name] = true
		have, created, err := owned.Ensure(ctx, r.store, route, want, kindPlaceholder)
		if notOwned := (*owned.NotOwnedError)(nil); errors.As(err, &notOwned) {
			route.Status.MarkServiceNotOwned(notOwned.Name)
		}
		if err != nil {
			return err
		}
		if created {
			continue
		}
		if updated := updatePlaceholder(have, want); updated != nil {
			if err := r.store.Save(ctx, updated, kindPlaceholder); err != nil {
				return err
			}
		}
	}
	for name, service := range present {
		if wanted[name] || !metav1.IsControlledBy(service, route) {
			continue
		}
		if err := r.store.Delete(ctx, service, client.Preconditions{UID: &service.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting placeholder service %q: %w", name, err)
		}
	}
	return nil
}

// tags returns the distinct tags of the route's traffic, sorted, "" for the route itself first.
func tags(route *servingv1.Route) []string {
	out := []string{""}
	for i := range route.Status.Traffic {
		out = append(out, route.Status.Traffic[i].Tag)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// programmed asks the mesh whether it does what the stored status says.
func (r *Reconciler) programmed(route *servingv1.Route) (programmed bool, why string) {
	if route.Generation != route.Status.ObservedGeneration || len(route.Status.Traffic) == 0 {
		return false, ""
	}
	return r.mesh.RouteProgrammed(route)
}

// reflectMesh reports the answer of the mesh. When something else has just been decided, the mesh cannot know it yet: it is
// asked again when the status that it reads is stored.
func reflectMesh(route *servingv1.Route, before *servingv1.RouteStatus, programmed bool, why string) {
	stored := route.Generation == before.ObservedGeneration && equality.Semantic.DeepEqual(route.Status.RouteStatusFields, before.RouteStatusFields)
	conditions := route.GetConditionSet().Manage(&route.Status)
	switch {
	case !stored, !programmed && why == "":
		route.Status.MarkIngressNotConfigured()
	case !programmed:
		conditions.MarkUnknown(servingv1.RouteConditionIngressReady, "IngressNotConfigured", "%s", why)
	case inProgress(&route.Status):
		route.Status.MarkIngressRolloutInProgress()
	default:
		conditions.MarkTrue(servingv1.RouteConditionIngressReady)
	}
}
