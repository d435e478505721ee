// Package configuration reconciles serving.knative.dev Configurations: each generation becomes a Revision, and the newest
// one that is ready becomes the latest ready revision, which routes follow. serving.AddToManager calls it; the service
// reconciler asks it which revision a configuration means. It must not know routes, Deployments or the mesh.
package configuration

import (
	"context"
	"fmt"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "configuration"

// Indexes of the cache.
const (
	revisionsByConfiguration = "serving/configuration.revisions"
	configurationsByRevision = "serving/configuration.wanted"
)

// AddIndexes adds the indexes that the reconciler reads by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &servingv1.Revision{}, revisionsByConfiguration, func(o client.Object) []string {
		return []string{o.GetLabels()[serving.ConfigurationLabelKey]}
	}); err != nil {
		return fmt.Errorf("indexing revisions by configuration: %w", err)
	}
	if err := indexer.IndexField(ctx, &servingv1.Configuration{}, configurationsByRevision, func(o client.Object) []string {
		return []string{RevisionName(o.(*servingv1.Configuration))}
	}); err != nil {
		return fmt.Errorf("indexing configurations by revision: %w", err)
	}
	return nil
}

// Revisions returns the revisions of a configuration from a cache with the indexes of AddIndexes. They are the cache's and must
// not be changed; the slice is the caller's.
func Revisions(ctx context.Context, reader client.Reader, c *servingv1.Configuration) ([]servingv1.Revision, error) {
	var revisions servingv1.RevisionList
	if err := reader.List(ctx, &revisions, client.InNamespace(c.Namespace), client.MatchingFields{revisionsByConfiguration: c.Name},
		client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing revisions of configuration %q: %w", c.Name, err)
	}
	return revisions.Items, nil
}

// AddToManager runs the reconciler with the manager.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1.Configuration{}).
		Watches(&servingv1.Revision{}, handler.EnqueueRequestsFromMapFunc(r.concerned)).
		WithOptions(options).
		Complete(r)
}

// concerned maps a revision to the configuration that it belongs to and to those that want its name.
func (r *Reconciler) concerned(ctx context.Context, revision client.Object) []reconcile.Request {
	var requests []reconcile.Request
	add := func(name string) {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: revision.GetNamespace(), Name: name}})
	}
	owner := revision.GetLabels()[serving.ConfigurationLabelKey]
	if owner != "" {
		add(owner)
	}
	var wanting servingv1.ConfigurationList
	if err := r.store.List(ctx, &wanting, client.InNamespace(revision.GetNamespace()),
		client.MatchingFields{configurationsByRevision: revision.GetName()}, client.UnsafeDisableDeepCopy); err != nil {
		// The cache answers from memory; it fails only when it is being stopped.
		return requests
	}
	for i := range wanting.Items {
		if name := wanting.Items[i].Name; name != owner {
			add(name)
		}
	}
	return requests
}
