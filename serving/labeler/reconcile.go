package labeler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/owned"
)

// Reconciler notes on revisions and configurations which routes use them. It is safe for concurrent use on different Routes.
type Reconciler struct {
	store owned.Store
	now   func() time.Time
}

// New returns a reconciler that works on store, whose cache has the indexes of AddIndexes. now stamps routing states.
func New(store owned.Store, now func() time.Time) *Reconciler {
	return &Reconciler{store: store, now: now}
}

// Reconcile implements reconcile.Reconciler. It needs no finalizer on the route: the notes name it, so that they can be
// found when it is gone, and at every start.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	route := &servingv1.Route{}
	err := r.store.Get(ctx, req.NamespacedName, route, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if apierrors.IsNotFound(err) || err == nil && route.DeletionTimestamp != nil {
		return reconcile.Result{}, r.forget(ctx, req.NamespacedName)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading route: %w", err)
	}
	used := Uses(route, r.lookup(ctx, route.Namespace))
	for name := range used.Revisions {
		err = errors.Join(err, r.revision(ctx, client.ObjectKey{Namespace: route.Namespace, Name: name}, route.Name, true))
	}
	for name := range used.Configurations {
		err = errors.Join(err, r.configuration(ctx, client.ObjectKey{Namespace: route.Namespace, Name: name}, route.Name, true))
	}
	if err != nil || !route.IsReady() && !route.IsFailed() {
		// Until the route has settled, the proxies may still send traffic where it went before.
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.clear(ctx, req.NamespacedName, used)
}

// forget removes the notes of a route that is gone. The route of a Service is noted before it exists, see the service
// reconciler: as long as the Service exists, so will the route.
func (r *Reconciler) forget(ctx context.Context, route client.ObjectKey) error {
	service := &servingv1.Service{}
	err := r.store.Get(ctx, route, service, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading service: %w", err)
	}
	if err == nil {
		return nil
	}
	return r.clear(ctx, route, Used{})
}

// clear removes the route from everything that it does not use.
func (r *Reconciler) clear(ctx context.Context, route client.ObjectKey, used Used) error {
	var revisions servingv1.RevisionList
	if err := r.store.List(ctx, &revisions, client.InNamespace(route.Namespace), client.MatchingFields{byRoute: route.Name},
		client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing revisions of route: %w", err)
	}
	var configurations servingv1.ConfigurationList
	if err := r.store.List(ctx, &configurations, client.InNamespace(route.Namespace), client.MatchingFields{byRoute: route.Name},
		client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing configurations of route: %w", err)
	}
	var err error
	for i := range revisions.Items {
		if revision := &revisions.Items[i]; !used.Revisions[revision.Name] {
			err = errors.Join(err, r.revision(ctx, client.ObjectKeyFromObject(revision), route.Name, false))
		}
	}
	for i := range configurations.Items {
		c := &configurations.Items[i]
		// The configuration of a Service always carries the Service's route, which the service reconciler would add again.
		if !used.Configurations[c.Name] && (c.Labels[serving.ServiceLabelKey] != route.Name || used.Configurations == nil) {
			err = errors.Join(err, r.configuration(ctx, client.ObjectKeyFromObject(c), route.Name, false))
		}
	}
	return err
}

func (r *Reconciler) revision(ctx context.Context, key client.ObjectKey, route string, used bool) error {
	return patch(ctx, r.store, key, func(revision *servingv1.Revision) {
		note(revision, route, used)
		noteState(revision, r.now())
	})
}

func (r *Reconciler) configuration(ctx context.Context, key client.ObjectKey, route string, used bool) error {
	return patch(ctx, r.store, key, func(c *servingv1.Configuration) { note(c, route, used) })
}

// patch changes the metadata of an object when change does. The list of routes is one value for several writers, so that a
// patch must know what it replaces; after a conflict it starts again from what is stored.
func patch[T any, P interface {
	*T
	client.Object
	DeepCopy() *T
}](ctx context.Context, s owned.Store, key client.ObjectKey, change func(P)) error {
	var reader client.Reader = s
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have := P(new(T))
		if err := reader.Get(ctx, key, have); err != nil {
			return err
		}
		reader = s.Live
		want := P(have.DeepCopy())
		change(want)
		if equality.Semantic.DeepEqual(have, want) {
			return nil
		}
		return s.Patch(ctx, want, client.MergeFromWithOptions(have, client.MergeFromWithOptimisticLock{}))
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("noting route on %T %q: %w", P(nil), key.Name, err)
	}
	return nil
}

func (r *Reconciler) lookup(ctx context.Context, namespace string) Lookup {
	get := func(name string, o client.Object) bool {
		err := r.store.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
		// What the cache does not have yet brings us back when it arrives.
		return err == nil
	}
	return Lookup{
		Revision: func(name string) *servingv1.Revision {
			if o := (&servingv1.Revision{}); get(name, o) {
				return o
			}
			return nil
		},
		Configuration: func(name string) *servingv1.Configuration {
			if o := (&servingv1.Configuration{}); get(name, o) {
				return o
			}
			return nil
		},
	}
}
