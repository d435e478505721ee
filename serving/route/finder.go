package route

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// notOwned is the reason of a route that waits for a Service which has the name of a placeholder of its.
const notOwned = "NotOwned"

// Finder finds the routes whose spec sends traffic to an object. Its Reader has the indexes of AddIndexes.
type Finder struct{ client.Reader }

// OfConfiguration maps a configuration to the routes that name it.
func (f Finder) OfConfiguration(ctx context.Context, c client.Object) []reconcile.Request {
	return f.targeting(ctx, c.GetNamespace(), configurationTarget(c.GetName()))
}

// OfRevision maps a revision to the routes that name it or its configuration. The queue drops doubles.
func (f Finder) OfRevision(ctx context.Context, revision client.Object) []reconcile.Request {
	requests := f.targeting(ctx, revision.GetNamespace(), revisionTarget(revision.GetName()))
	if name := revision.GetLabels()[serving.ConfigurationLabelKey]; name != "" {
		requests = append(requests, f.targeting(ctx, revision.GetNamespace(), configurationTarget(name))...)
	}
	return requests
}

// OfService maps a Service to the route whose placeholder it is or whose name it has, and to those that may have waited for it to
// go because it has the name of a placeholder of theirs.
func (f Finder) OfService(ctx context.Context, service client.Object) []reconcile.Request {
	names := []string{service.GetName(), service.GetLabels()[serving.RouteLabelKey]}
	if owner := metav1.GetControllerOf(service); owner != nil && owner.Kind == "Route" {
		names = append(names, owner.Name)
	}
	var requests []reconcile.Request
	for _, name := range names {
		if name != "" {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: service.GetNamespace(), Name: name}})
		}
	}
	return append(requests, f.find(ctx, service.GetNamespace(), routesByTrouble, notOwned)...)
}

func (f Finder) targeting(ctx context.Context, namespace, target string) []reconcile.Request {
	return f.find(ctx, namespace, routesByTarget, target)
}

// find lists routes by an index.
func (f Finder) find(ctx context.Context, namespace, index, value string) []reconcile.Request {
	var routes servingv1.RouteList
	if err := f.List(ctx, &routes, client.InNamespace(namespace), client.MatchingFields{index: value},
		client.UnsafeDisableDeepCopy); err != nil {
		// The cache answers from memory; it fails only when it is being stopped.
		return nil
	}
	requests := make([]reconcile.Request, 0, len(routes.Items))
	for i := range routes.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&routes.Items[i])})
	}
	return requests
}

func revisionTarget(name string) string      { return "revision/" + name }
func configurationTarget(name string) string { return "configuration/" + name }
