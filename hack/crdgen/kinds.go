package main

import (
	"reflect"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	networkingv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
)

// kind is all that a definition holds beside its schema.
type kind struct {
	names   apiextensionsv1.CustomResourceDefinitionNames
	group   string
	version string
	scope   apiextensionsv1.ResourceScope
	columns []apiextensionsv1.CustomResourceColumnDefinition
	// labels are added to those that every definition has.
	labels map[string]string
	// object is the Go type; filter narrows its spec, nil keeps all of it.
	object reflect.Type
	filter *filter
}

func (k kind) fileName() string { return k.names.Plural + "." + k.group + ".yaml" }

const (
	servingGroup     = "serving.knative.dev"
	autoscalingGroup = "autoscaling.internal.knative.dev"
	networkingGroup  = "networking.internal.knative.dev"
)

// The duck labels tell generic clients which shape a kind has.
const (
	addressableLabel = "duck.knative.dev/addressable"
	podSpecableLabel = "duck.knative.dev/podspecable"
)

// kinds lists the definitions in the order of their files.
func kinds() []kind {
	return []kind{service(), configuration(), revision(), route(), domainMapping(), podAutoscaler(), clusterDomainClaim()}
}

func service() kind {
	return kind{
		names: names("Service", "service", []string{"kservice", "ksvc"}, "all", "knative", "serving"),
		group: servingGroup, version: "v1", scope: apiextensionsv1.NamespaceScoped,
		labels: map[string]string{addressableLabel: "true", podSpecableLabel: "true"},
		columns: append([]apiextensionsv1.CustomResourceColumnDefinition{
			column("URL", ".status.url"),
			column("LatestCreated", ".status.latestCreatedRevisionName"),
			column("LatestReady", ".status.latestReadyRevisionName"),
		}, readyColumns()...),
		object: reflect.TypeFor[servingv1.Service](), filter: in("spec", in("template", in("spec", revisionSpec()))),
	}
}

func configuration() kind {
	return kind{
		names: names("Configuration", "configuration", []string{"config", "cfg"}, "all", "knative", "serving"),
		group: servingGroup, version: "v1", scope: apiextensionsv1.NamespaceScoped,
		labels: map[string]string{podSpecableLabel: "true"},
		columns: append([]apiextensionsv1.CustomResourceColumnDefinition{
			column("LatestCreated", ".status.latestCreatedRevisionName"),
			column("LatestReady", ".status.latestReadyRevisionName"),
		}, readyColumns()...),
		object: reflect.TypeFor[servingv1.Configuration](), filter: in("spec", in("template", in("spec", revisionSpec()))),
	}
}

func revision() kind {
	columns := []apiextensionsv1.CustomResourceColumnDefinition{
		column("Config Name", `.metadata.labels['serving\.knative\.dev/configuration']`),
		column("Generation", `.metadata.labels['serving\.knative\.dev/configurationGeneration']`),
	}
	columns = append(columns, readyColumns()...)
	columns = append(columns, numberColumn("Actual Replicas", ".status.actualReplicas"),
		numberColumn("Desired Replicas", ".status.desiredReplicas"))
	return kind{
		names: names("Revision", "revision", []string{"rev"}, "all", "knative", "serving"),
		group: servingGroup, version: "v1", scope: apiextensionsv1.NamespaceScoped, columns: columns,
		object: reflect.TypeFor[servingv1.Revision](), filter: in("spec", revisionSpec()),
	}
}

func route() kind {
	return kind{
		names: names("Route", "route", []string{"rt"}, "all", "knative", "serving"),
		group: servingGroup, version: "v1", scope: apiextensionsv1.NamespaceScoped,
		labels:  map[string]string{addressableLabel: "true"},
		columns: append([]apiextensionsv1.CustomResourceColumnDefinition{column("URL", ".status.url")}, readyColumns()...),
		object:  reflect.TypeFor[servingv1.Route](),
	}
}

func domainMapping() kind {
	return kind{
		names: names("DomainMapping", "domainmapping", []string{"dm"}, "all", "knative", "serving"),
		group: servingGroup, version: "v1beta1", scope: apiextensionsv1.NamespaceScoped,
		columns: append([]apiextensionsv1.CustomResourceColumnDefinition{column("URL", ".status.url")}, readyColumns()...),
		object:  reflect.TypeFor[servingv1beta1.DomainMapping](),
	}
}

func podAutoscaler() kind {
	return kind{
		names: names("PodAutoscaler", "podautoscaler", []string{"kpa", "pa"}, "knative-internal", "autoscaling"),
		group: autoscalingGroup, version: "v1alpha1", scope: apiextensionsv1.NamespaceScoped,
		columns: append([]apiextensionsv1.CustomResourceColumnDefinition{
			numberColumn("DesiredScale", ".status.desiredScale"),
			numberColumn("ActualScale", ".status.actualScale"),
		}, readyColumns()...),
		object: reflect.TypeFor[autoscalingv1alpha1.PodAutoscaler](),
		filter: in("spec", in("scaleTargetRef", only("apiVersion", "kind", "name"))),
	}
}

func clusterDomainClaim() kind {
	return kind{
		names: names("ClusterDomainClaim", "clusterdomainclaim", []string{"cdc"}, "knative-internal", "networking"),
		group: networkingGroup, version: "v1alpha1", scope: apiextensionsv1.ClusterScoped,
		object: reflect.TypeFor[networkingv1alpha1.ClusterDomainClaim](),
	}
}

func names(kind, singular string, short []string, categories ...string) apiextensionsv1.CustomResourceDefinitionNames {
	return apiextensionsv1.CustomResourceDefinitionNames{
		Kind: kind, ListKind: kind + "List", Singular: singular, Plural: singular + "s", ShortNames: short, Categories: categories,
	}
}

func column(name, path string) apiextensionsv1.CustomResourceColumnDefinition {
	return apiextensionsv1.CustomResourceColumnDefinition{Name: name, Type: "string", JSONPath: path}
}

func numberColumn(name, path string) apiextensionsv1.CustomResourceColumnDefinition {
	return apiextensionsv1.CustomResourceColumnDefinition{Name: name, Type: "integer", JSONPath: path}
}

func readyColumns() []apiextensionsv1.CustomResourceColumnDefinition {
	return []apiextensionsv1.CustomResourceColumnDefinition{
		column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
		column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
	}
}
