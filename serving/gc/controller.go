// Package gc deletes Revisions that no Route uses any more, by the rules of config-gc, and explains why a revision is kept.
// serving.AddToManager runs it; weft explain asks it. It reads what the labeler notes on revisions and must not know routes.
package gc

import (
	"context"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "gc"

// AddToManager runs the reconciler with the manager. Each of sources names configurations to look at for other reasons than a
// change of theirs. The indexes of package configuration must be in the manager's cache.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options, sources ...source.Source) error {
	// What a revision reports, which changes often, does not count.
	relevant := builder.WithPredicates(predicate.Or(predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{}))
	b := builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1.Configuration{}).
		Watches(&servingv1.Revision{}, handler.EnqueueRequestsFromMapFunc(ofRevision), relevant).
		WithOptions(options)
	for _, s := range sources {
		b = b.WatchesRawSource(s)
	}
	return b.Complete(r)
}

// ofRevision maps a revision to its configuration.
func ofRevision(_ context.Context, revision client.Object) []reconcile.Request {
	name := revision.GetLabels()[serving.ConfigurationLabelKey]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: revision.GetNamespace(), Name: name}}}
}
