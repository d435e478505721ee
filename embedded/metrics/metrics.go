// Package metrics serves metrics.k8s.io/v1beta1, what nodes and pods use, inside of the embedded kube-apiserver. Package
// embedded/apiserver installs it. Authentication, authorization, discovery and content types are the API server's own: there is no second
// server with certificates to be called. It must not import the node agent, from which the figures come through Source.
package metrics

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	metricsapi "k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// retryAfter is what clients are told to wait, in seconds, while there is no source.
const retryAfter = 1

// Source says what is used. It is called concurrently and may take a second to measure. The results are the caller's.
type Source interface {
	NodeMetrics(ctx context.Context) (*metricsapi.NodeMetrics, error)
	// PodMetrics lists the pods of a namespace, all for an empty one.
	PodMetrics(ctx context.Context, namespace string) ([]metricsapi.PodMetrics, error)
}

// Group is the API group, to be installed in a server. source is called for each request and returns nil while there is none.
func Group(source func() Source) *genericapiserver.APIGroupInfo {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	info := genericapiserver.NewDefaultAPIGroupInfo(metricsapi.GroupName, scheme, runtime.NewParameterCodec(scheme), serializer.NewCodecFactory(scheme))
	info.VersionedResourcesStorageMap[v1beta1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		"nodes": &nodes{resource{name: "nodes", singular: "node", source: source}},
		"pods":  &pods{resource{name: "pods", singular: "pod", source: source}},
	}
	return &info
}

// resource is what both resources have in common.
type resource struct {
	name, singular string
	source         func() Source
}

// Destroy implements rest.Storage.
func (resource) Destroy() {}

// GetSingularName implements rest.SingularNameProvider.
func (r resource) GetSingularName() string { return r.singular }

func (r resource) available() (Source, error) {
	source := r.source()
	if source == nil {
		return nil, apierrors.NewGenericServerResponse(503, "get", v1beta1.Resource(r.name), "", "the node has not started", retryAfter, false)
	}
	return source, nil
}

func (r resource) notFound(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: metricsapi.GroupName, Resource: r.name}, name)
}

// selected returns what tells whether the options of a list ask for an object.
func selected(o *metainternalversion.ListOptions) func(metav1.ObjectMeta) bool {
	label, field := labels.Everything(), fields.Everything()
	if o != nil && o.LabelSelector != nil {
		label = o.LabelSelector
	}
	if o != nil && o.FieldSelector != nil {
		field = o.FieldSelector
	}
	return func(m metav1.ObjectMeta) bool {
		return label.Matches(labels.Set(m.Labels)) && field.Matches(fields.Set{"metadata.name": m.Name, "metadata.namespace": m.Namespace})
	}
}

type nodes struct{ resource }

var (
	_ rest.Lister               = (*nodes)(nil)
	_ rest.Getter               = (*nodes)(nil)
	_ rest.Scoper               = (*nodes)(nil)
	_ rest.SingularNameProvider = (*nodes)(nil)
	_ rest.KindProvider         = (*nodes)(nil)
)

// New implements rest.Storage.
func (*nodes) New() runtime.Object { return &metricsapi.NodeMetrics{} }

// NewList implements rest.Lister.
func (*nodes) NewList() runtime.Object { return &metricsapi.NodeMetricsList{} }

// Kind implements rest.KindProvider.
func (*nodes) Kind() string { return "NodeMetrics" }

// NamespaceScoped implements rest.Scoper.
func (*nodes) NamespaceScoped() bool { return false }

// List implements rest.Lister.
func (n *nodes) List(ctx context.Context, o *metainternalversion.ListOptions) (runtime.Object, error) {
	node, err := n.measure(ctx)
	if err != nil {
		return nil, err
	}
	list := &metricsapi.NodeMetricsList{Items: []metricsapi.NodeMetrics{}}
	if selected(o)(node.ObjectMeta) {
		list.Items = append(list.Items, *node)
	}
	return list, nil
}

// Get implements rest.Getter.
func (n *nodes) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	node, err := n.measure(ctx)
	if err != nil {
		return nil, err
	}
	if node.Name != name {
		return nil, n.notFound(name)
	}
	return node, nil
}

func (n *nodes) measure(ctx context.Context) (*metricsapi.NodeMetrics, error) {
	source, err := n.available()
	if err != nil {
		return nil, err
	}
	node, err := source.NodeMetrics(ctx)
	if err != nil {
		return nil, fmt.Errorf("measuring the node: %w", err)
	}
	return node, nil
}

type pods struct{ resource }

var (
	_ rest.Lister               = (*pods)(nil)
	_ rest.Getter               = (*pods)(nil)
	_ rest.Scoper               = (*pods)(nil)
	_ rest.SingularNameProvider = (*pods)(nil)
	_ rest.KindProvider         = (*pods)(nil)
)

// New implements rest.Storage.
func (*pods) New() runtime.Object { return &metricsapi.PodMetrics{} }

// NewList implements rest.Lister.
func (*pods) NewList() runtime.Object { return &metricsapi.PodMetricsList{} }

// Kind implements rest.KindProvider.
func (*pods) Kind() string { return "PodMetrics" }

// NamespaceScoped implements rest.Scoper.
func (*pods) NamespaceScoped() bool { return true }

// List implements rest.Lister.
func (p *pods) List(ctx context.Context, o *metainternalversion.ListOptions) (runtime.Object, error) {
	items, err := p.measure(ctx)
	if err != nil {
		return nil, err
	}
	list, wanted := &metricsapi.PodMetricsList{Items: []metricsapi.PodMetrics{}}, selected(o)
	for i := range items {
		if wanted(items[i].ObjectMeta) {
			list.Items = append(list.Items, items[i])
		}
	}
	return list, nil
}

// Get implements rest.Getter.
func (p *pods) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	items, err := p.measure(ctx)
	if err != nil {
		return nil, err
	}
	for i := range items {
		if items[i].Name == name {
			return &items[i], nil
		}
	}
	return nil, p.notFound(name)
}

func (p *pods) measure(ctx context.Context) ([]metricsapi.PodMetrics, error) {
	source, err := p.available()
	if err != nil {
		return nil, err
	}
	items, err := source.PodMetrics(ctx, request.NamespaceValue(ctx))
	if err != nil {
		return nil, fmt.Errorf("measuring pods: %w", err)
	}
	return items, nil
}
