package admission

import (
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"knative.dev/pkg/apis"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
)

// object is what all published types are.
type object interface {
	runtime.Object
	metav1.ObjectMetaAccessor
	apis.Defaultable
	apis.Validatable
}

// kind is one kind that the webhooks are for.
type kind struct {
	gvk    schema.GroupVersionKind
	plural string
	make   func() object
	// template gives the revision template of kinds that have one.
	template func(object) *servingv1.RevisionTemplateSpec
}

// kinds lists them. Their order is that of the registered rules.
func kinds() []kind {
	return []kind{
		{
			gvk: autoscalingv1alpha1.SchemeGroupVersion.WithKind("PodAutoscaler"), plural: "podautoscalers",
			make: func() object { return &autoscalingv1alpha1.PodAutoscaler{} },
		},
		{
			gvk: servingv1.SchemeGroupVersion.WithKind("Configuration"), plural: "configurations",
			make:     func() object { return &servingv1.Configuration{} },
			template: configurationTemplate,
		},
		{
			gvk: servingv1.SchemeGroupVersion.WithKind("Revision"), plural: "revisions",
			make: func() object { return &servingv1.Revision{} },
		},
		{
			gvk: servingv1.SchemeGroupVersion.WithKind("Route"), plural: "routes",
			make: func() object { return &servingv1.Route{} },
		},
		{
			gvk: servingv1.SchemeGroupVersion.WithKind("Service"), plural: "services",
			make:     func() object { return &servingv1.Service{} },
			template: serviceTemplate,
		},
		{
			gvk: servingv1beta1.SchemeGroupVersion.WithKind("DomainMapping"), plural: "domainmappings",
			make: func() object { return &servingv1beta1.DomainMapping{} },
		},
	}
}

// find returns the kind of a request.
func find(req *admissionv1.AdmissionRequest) (kind, bool) {
	gvk := schema.GroupVersionKind{Group: req.Kind.Group, Version: req.Kind.Version, Kind: req.Kind.Kind}
	for _, k := range kinds() {
		if k.gvk == gvk {
			return k, true
		}
	}
	return kind{}, false
}
