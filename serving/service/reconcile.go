package service

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/configuration"
	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/status"
)

// Kinds as events and errors name them.
const (
	kindConfiguration = "Configuration"
	kindRoute         = "Route"
)

// Reconciler makes a Configuration and a Route of each Service. It is safe for concurrent use on different Services.
type Reconciler struct {
	store owned.Store
}

// New returns a reconciler that works on store.
func New(store owned.Store) *Reconciler {
	return &Reconciler{store: store}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	return status.Reconcile(ctx, r.store, req.NamespacedName, r.reconcile)
}

func (r *Reconciler) reconcile(ctx context.Context, s *servingv1.Service) (reconcile.Result, error) {
	config, err := r.configuration(ctx, s)
	if err != nil {
		return reconcile.Result{}, err
	}
	reflectConfiguration(&s.Status, config)

	if name := config.Spec.Template.Name; name != "" {
		// The user chose the revision's name. Until the configuration has accepted it, the route must not be told of it:
		// somebody else's revision may bear it.
		if config.Generation != config.Status.ObservedGeneration {
			return reconcile.Result{}, nil
		}
		taken, err := r.taken(ctx, config, name)
		if err != nil {
			return reconcile.Result{}, err
		}
		if taken {
			s.Status.MarkRevisionNameTaken(name)
			return reconcile.Result{}, nil
		}
	}

	route, err := r.route(ctx, s)
	if err != nil {
		return reconcile.Result{}, err
	}
	reflectRoute(&s.Status, route, config)
	explain(s)
	return reconcile.Result{}, nil
}

func (r *Reconciler) configuration(ctx context.Context, s *servingv1.Service) (*servingv1.Configuration, error) {
	existing, created, err := owned.Ensure(ctx, r.store, s, Configuration(s, &servingv1.Configuration{}), kindConfiguration)
	if notOwned := (*owned.NotOwnedError)(nil); errors.As(err, &notOwned) {
		s.Status.MarkConfigurationNotOwned(notOwned.Name)
	}
	if err != nil || created {
		return existing, err
	}
	want := Configuration(s, existing)
	if equality.Semantic.DeepEqual(want.Spec, existing.Spec) &&
		equality.Semantic.DeepEqual(want.Labels, existing.Labels) && equality.Semantic.DeepEqual(want.Annotations, existing.Annotations) {
		return existing, nil
	}
	updated := existing.DeepCopy()
	updated.Spec, updated.Labels, updated.Annotations = want.Spec, want.Labels, want.Annotations
	return updated, r.store.Save(ctx, updated, kindConfiguration)
}

func (r *Reconciler) route(ctx context.Context, s *servingv1.Service) (*servingv1.Route, error) {
	want := Route(s)
	existing, created, err := owned.Ensure(ctx, r.store, s, want, kindRoute)
	if notOwned := (*owned.NotOwnedError)(nil); errors.As(err, &notOwned) {
		s.Status.MarkRouteNotOwned(notOwned.Name)
	}
	if err != nil || created {
		return existing, err
	}
	if equality.Semantic.DeepEqual(want.Spec, existing.Spec) &&
		equality.Semantic.DeepEqual(want.Labels, existing.Labels) && equality.Semantic.DeepEqual(want.Annotations, existing.Annotations) {
		return existing, nil
	}
	updated := existing.DeepCopy()
	updated.Spec, updated.Labels, updated.Annotations = want.Spec, want.Labels, want.Annotations
	return updated, r.store.Save(ctx, updated, kindRoute)
}

// taken says whether the revision of that name is another one than the configuration asks for.
func (r *Reconciler) taken(ctx context.Context, c *servingv1.Configuration, name string) (bool, error) {
	var revision servingv1.Revision
	key := client.ObjectKey{Namespace: c.Namespace, Name: name}
	err := r.store.Get(ctx, key, &revision, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return !configuration.Matches(c, &revision), nil
}
