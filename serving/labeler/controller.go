package labeler

import (
	"context"
	"fmt"

	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "labeler"

const byRoute = "serving/labeler.routes"

// AddIndexes adds the indexes that the reconciler reads by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	routes := func(o client.Object) []string { return Routes(o.GetAnnotations()) }
	if err := indexer.IndexField(ctx, &servingv1.Revision{}, byRoute, routes); err != nil {
		return fmt.Errorf("indexing revisions by route: %w", err)
	}
	if err := indexer.IndexField(ctx, &servingv1.Configuration{}, byRoute, routes); err != nil {
		return fmt.Errorf("indexing configurations by route: %w", err)
	}
	return nil
}

// AddToManager runs the reconciler with the manager. ofConfiguration and ofRevision map to the routes that send traffic to
// their argument.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options, ofConfiguration, ofRevision handler.MapFunc) error {
	return builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1.Route{}).
		Watches(&servingv1.Configuration{}, handler.EnqueueRequestsFromMapFunc(also(ofConfiguration))).
		Watches(&servingv1.Revision{}, handler.EnqueueRequestsFromMapFunc(also(ofRevision))).
		WithOptions(options).
		Complete(r)
}

// also adds the routes that are noted on an object already: they may be gone.
func also(targeting handler.MapFunc) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		requests := targeting(ctx, o)
		for _, name := range Routes(o.GetAnnotations()) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: name}})
		}
		return requests
	}
}
