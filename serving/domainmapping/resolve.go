package domainmapping

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/status"
)

// unresolvedError says why a reference leads nowhere. It is the user's to mend, and the watches on what can be referred to notice.
type unresolvedError struct{ text string }

// Error implements error.
func (e *unresolvedError) Error() string { return e.text }

func unresolved(format string, args ...any) error {
	return &unresolvedError{fmt.Sprintf(format, args...)}
}

// resolve reports whether the mapping's reference leads to a host of its own namespace in the cluster.
func (r *Reconciler) resolve(ctx context.Context, mapping *servingv1beta1.DomainMapping, s route.Settings) (resolved bool, err error) {
	url, err := r.address(ctx, mapping, s)
	switch {
	case err != nil:
	case url == nil:
		err = unresolved("address not set for %s %q", mapping.Spec.Ref.Kind, mapping.Spec.Ref.Name)
	default:
		err = check(url, mapping.Namespace, s.Config.Domain.ClusterLocal())
	}
	if err == nil {
		mapping.Status.MarkReferenceResolved()
		return true, nil
	}
	mapping.Status.MarkReferenceNotResolved(status.Escape(err.Error()))
	mapping.Status.MarkIngressNotConfigured()
	if _, users := err.(*unresolvedError); users { //nolint:errorlint // it is never wrapped
		err = nil
	}
	return false, err
}

// address is the URL in the cluster of what the mapping refers to.
func (r *Reconciler) address(ctx context.Context, mapping *servingv1beta1.DomainMapping, s route.Settings) (*apis.URL, error) {
	ref := &mapping.Spec.Ref
	key := client.ObjectKey{Namespace: mapping.Namespace, Name: ref.Name}
	if ref.Namespace != "" {
		key.Namespace = ref.Namespace
	}
	group, _, _ := strings.Cut(ref.APIVersion, "/")
	switch {
	case ref.APIVersion == "v1" && ref.Kind == "Service":
		return apis.HTTP(ref.Name + "." + key.Namespace + "." + s.Config.Domain.ClusterLocal()), r.read(ctx, key, "", "services", &corev1.Service{})
	case group == serving.GroupName && ref.Kind == "Service":
		var service servingv1.Service
		err := r.read(ctx, key, group, "services", &service)
		return urlOf(service.Status.Address), err
	case group == serving.GroupName && ref.Kind == "Route":
		var target servingv1.Route
		err := r.read(ctx, key, group, "routes", &target)
		return urlOf(target.Status.Address), err
	}
	return nil, unresolved("%s of %q cannot be mapped to: only a Knative Service, a Knative Route and a Kubernetes Service can", ref.Kind, ref.APIVersion)
}

func (r *Reconciler) read(ctx context.Context, key client.ObjectKey, group, resource string, into client.Object) error {
	err := r.store.Get(ctx, key, into)
	if apierrors.IsNotFound(err) {
		// The cache names the kind; users and tools know the text of the API server, which names the resource.
		return unresolved("failed to get object %s: %v", key, apierrors.NewNotFound(schema.GroupResource{Group: group, Resource: resource}, key.Name))
	}
	return err
}

// urlOf is the URL of an address, nil when there is none yet.
func urlOf(address *duckv1.Addressable) *apis.URL {
	if address == nil {
		return nil
	}
	return address.URL
}

// check refuses what a mapping cannot lead to: it maps a whole host to a whole host, and only within its namespace.
func check(url *apis.URL, namespace, clusterLocal string) error {
	if strings.TrimSuffix(url.Path, "/") != "" {
		return unresolved("resolved URI %q contains a path", url)
	}
	name, ok := strings.CutSuffix(url.Host, "."+clusterLocal)
	parts := strings.Split(name, ".")
	if !ok || len(parts) != 2 {
		return unresolved("resolved URI %q must be of the form {name}.{namespace}.%s", url, clusterLocal)
	}
	if parts[1] != namespace {
		return unresolved("resolved URI %q must be in same namespace as DomainMapping", url)
	}
	return nil
}
