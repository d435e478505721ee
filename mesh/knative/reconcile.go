package knative

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// Reconcile compiles one Route and the revisions that it names, and hands them to the distributor as one batch, so that a proxy has the
// backends before the Route that names them, and loses them after it.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var route servingv1.Route
	err := c.client.Get(ctx, req.NamespacedName, &route)
	if apierrors.IsNotFound(err) || err == nil && !route.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, c.remove(owner{kindRoute, req.NamespacedName}, config.KnativeRoute(req.Namespace, req.Name))
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading route %s: %w", req.NamespacedName, err)
	}

	upserts, deletes, err := c.backends(ctx, &route)
	if err != nil {
		return reconcile.Result{}, err
	}
	send, unused := c.table.set(c.compile(&route))
	for _, r := range send {
		upserts = append(upserts, r)
	}
	for _, name := range unused {
		deletes = append(deletes, distribute.Key{TypeURL: config.BackendType, Name: name})
	}
	if err := c.distributor.Apply(upserts, deletes); err != nil {
		return reconcile.Result{}, fmt.Errorf("distributing route %s: %w", req.NamespacedName, err)
	}
	return reconcile.Result{}, nil
}

// remove withdraws an object that is gone or going. Backends of revisions that nobody names any more go with it.
func (c *Controller) remove(key owner, resource string) error {
	c.programmed.forget(key)
	send, unused := c.table.remove(key)
	upserts := make([]config.Resource, 0, len(send))
	for _, r := range send {
		upserts = append(upserts, r)
	}
	deletes := []distribute.Key{{TypeURL: config.RouteType, Name: resource}}
	for _, name := range unused {
		deletes = append(deletes, distribute.Key{TypeURL: config.BackendType, Name: name})
	}
	if err := c.distributor.Apply(upserts, deletes); err != nil {
		return fmt.Errorf("withdrawing %s: %w", key, err)
	}
	return nil
}

// backends compiles the revisions that a Route names. One that does not exist has no backend: the proxies answer for the Route's share
// of it as they do for any missing backend, until the revision appears and brings the Route back here.
func (c *Controller) backends(ctx context.Context, route *servingv1.Route) (upserts []config.Resource, deletes []distribute.Key, err error) {
	seen := make(map[string]bool)
	for i := range route.Status.Traffic {
		name := route.Status.Traffic[i].RevisionName
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		key := types.NamespacedName{Namespace: route.Namespace, Name: name}
		var rev servingv1.Revision
		switch err := c.client.Get(ctx, key, &rev); {
		case apierrors.IsNotFound(err):
			deletes = append(deletes, distribute.Key{TypeURL: config.BackendType, Name: config.RevisionBackend(key.Namespace, key.Name)})
		case err != nil:
			return nil, nil, fmt.Errorf("reading revision %s: %w", key, err)
		default:
			upserts = append(upserts, CompileBackend(&rev))
		}
	}
	return upserts, deletes, nil
}
