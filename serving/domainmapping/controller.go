// Package domainmapping reconciles serving.knative.dev DomainMappings: it claims the domain for the mapping's namespace, resolves the
// reference to a host in the cluster, and reports when the mesh serves the domain. The mesh reads DomainMappings by itself and serves
// those whose domain is claimed. serving.AddToManager calls it. It must not import the mesh.
package domainmapping

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "domainmapping"

// Indexes of the cache.
const (
	mappingsByDomain    = "serving/domainmapping.domain"
	mappingsByReference = "serving/domainmapping.reference"
)

// Mesh carries the traffic of domain mappings. It learns of them from the API.
type Mesh interface {
	// MappingProgrammed says whether the proxies serve the mapping's domain as its spec asks, and why not yet, in words for its user. The
	// mapping has been read from the API server. It may be called concurrently and must not block.
	MappingProgrammed(ctx context.Context, mapping *servingv1beta1.DomainMapping) (programmed bool, why string)
	// MappingChanges delivers the mappings for which the answer may have changed. It is called once.
	MappingChanges() <-chan event.GenericEvent
}

// AddIndexes adds the indexes that the reconciler reads by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &servingv1beta1.DomainMapping{}, mappingsByDomain, func(o client.Object) []string {
		return []string{o.GetName()}
	}); err != nil {
		return fmt.Errorf("indexing domain mappings by domain: %w", err)
	}
	if err := indexer.IndexField(ctx, &servingv1beta1.DomainMapping{}, mappingsByReference, func(o client.Object) []string {
		return []string{o.(*servingv1beta1.DomainMapping).Spec.Ref.Name}
	}); err != nil {
		return fmt.Errorf("indexing domain mappings by reference: %w", err)
	}
	return nil
}

// AddToManager runs the reconciler with the manager. Each of sources names mappings to look at for other reasons than a change of
// theirs.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options, sources ...source.Source) error {
	b := builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1beta1.DomainMapping{}).
		Watches(&netv1alpha1.ClusterDomainClaim{}, handler.EnqueueRequestsFromMapFunc(r.ofClaim)).
		Watches(&servingv1.Service{}, handler.EnqueueRequestsFromMapFunc(r.ofTarget)).
		Watches(&servingv1.Route{}, handler.EnqueueRequestsFromMapFunc(r.ofTarget)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.ofTarget)).
		WatchesRawSource(source.Channel(r.mesh.MappingChanges(), &handler.EnqueueRequestForObject{})).
		WithOptions(options)
	for _, s := range sources {
		b = b.WatchesRawSource(s)
	}
	return b.Complete(r)
}

// ofClaim maps a claim to the mappings of its domain, of which there can be one in each namespace.
func (r *Reconciler) ofClaim(ctx context.Context, claim client.Object) []reconcile.Request {
	return r.requests(ctx, client.MatchingFields{mappingsByDomain: claim.GetName()})
}

// ofTarget maps an object that mappings can refer to, to those that refer to something of its name. Kinds are not told apart: a Knative
// Service, its Route and its placeholder have one name.
func (r *Reconciler) ofTarget(ctx context.Context, target client.Object) []reconcile.Request {
	return r.requests(ctx, client.InNamespace(target.GetNamespace()), client.MatchingFields{mappingsByReference: target.GetName()})
}

func (r *Reconciler) requests(ctx context.Context, which ...client.ListOption) []reconcile.Request {
	var mappings servingv1beta1.DomainMappingList
	if err := r.store.List(ctx, &mappings, append(which, client.UnsafeDisableDeepCopy)...); err != nil {
		// The cache answers from memory; it fails only when it is being stopped.
		return nil
	}
	requests := make([]reconcile.Request, 0, len(mappings.Items))
	for i := range mappings.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&mappings.Items[i])})
	}
	return requests
}
