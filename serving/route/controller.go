// Package route reconciles serving.knative.dev Routes: it resolves which revisions get which part of the traffic, decides
// the URLs, holds the route's names in the cluster's DNS, and reports when the mesh does what the status says. The mesh
// reads Routes by itself: status.traffic is the contract between the two. serving.AddToManager calls it. It must not import
// the mesh.
package route

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "route"

// Indexes of the cache.
const (
	servicesByRoute = "serving/route.services"
	routesByTarget  = "serving/route.targets"
	routesByTrouble = "serving/route.trouble"
)

// AddIndexes adds the indexes that the reconciler reads by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &corev1.Service{}, servicesByRoute, func(o client.Object) []string {
		if name := o.GetLabels()[serving.RouteLabelKey]; name != "" {
			return []string{name}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("indexing services by route: %w", err)
	}
	if err := indexer.IndexField(ctx, &servingv1.Route{}, routesByTarget, func(o client.Object) []string {
		route := o.(*servingv1.Route)
		out := make([]string, 0, len(route.Spec.Traffic))
		for i := range route.Spec.Traffic {
			if target := &route.Spec.Traffic[i]; target.RevisionName != "" {
				out = append(out, revisionTarget(target.RevisionName))
			} else {
				out = append(out, configurationTarget(target.ConfigurationName))
			}
		}
		return out
	}); err != nil {
		return fmt.Errorf("indexing routes by target: %w", err)
	}
	if err := indexer.IndexField(ctx, &servingv1.Route{}, routesByTrouble, func(o client.Object) []string {
		if o.(*servingv1.Route).Status.GetCondition(servingv1.RouteConditionIngressReady).GetReason() == notOwned {
			return []string{notOwned}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("indexing routes by trouble: %w", err)
	}
	return nil
}

// AddToManager runs the reconciler with the manager. Each of sources names routes to look at for other reasons than a change
// of theirs.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options, sources ...source.Source) error {
	finder := Finder{Reader: r.store}
	b := builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1.Route{}).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(finder.OfService)).
		Watches(&servingv1.Configuration{}, handler.EnqueueRequestsFromMapFunc(finder.OfConfiguration)).
		Watches(&servingv1.Revision{}, handler.EnqueueRequestsFromMapFunc(finder.OfRevision)).
		WatchesRawSource(source.Channel(r.mesh.Changes(), &handler.EnqueueRequestForObject{})).
		WithOptions(options)
	for _, s := range sources {
		b = b.WatchesRawSource(s)
	}
	return b.Complete(r)
}
