package configuration

import (
	"maps"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/names"
)

// RevisionName is the name of the revision that the configuration's present generation asks for.
func RevisionName(c *servingv1.Configuration) string {
	if name := c.Spec.Template.Name; name != "" {
		return name
	}
	return names.Revision(c.Name, c.Generation)
}

// Revision returns the revision of the configuration's present generation. now stamps its routing state.
func Revision(c *servingv1.Configuration, now time.Time) *servingv1.Revision {
	template := c.Spec.Template.DeepCopy()
	r := &servingv1.Revision{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	r.Namespace, r.Name = c.Namespace, RevisionName(c)

	r.Labels = merge(r.Labels, map[string]string{
		serving.ConfigurationLabelKey:           c.Name,
		serving.ConfigurationUIDLabelKey:        string(c.UID),
		serving.ConfigurationGenerationLabelKey: strconv.FormatInt(c.Generation, 10),
		serving.ServiceLabelKey:                 c.Labels[serving.ServiceLabelKey],
		serving.ServiceUIDLabelKey:              c.Labels[serving.ServiceUIDLabelKey],
	})
	// Who changed the configuration last has created this revision.
	routes := c.Annotations[serving.RoutesAnnotationKey]
	r.Annotations = merge(r.Annotations, map[string]string{
		serving.CreatorAnnotation:   c.Annotations[serving.UpdaterAnnotation],
		serving.RoutesAnnotationKey: routes,
	})
	// A configuration that a route uses gets its revision ready for traffic at once; otherwise a route has yet to say so.
	state := servingv1.RoutingStatePending
	if routes != "" {
		state = servingv1.RoutingStateActive
	}
	r.SetRoutingState(state, now)
	r.OwnerReferences = append(r.OwnerReferences, *metav1.NewControllerRef(c, c.GetGroupVersionKind()))
	return r
}

// Matches says whether r is the revision that the configuration's present generation asks for. Labels and annotations do
// not count when the generation differs: users may change those of a revision.
func Matches(c *servingv1.Configuration, r *servingv1.Revision) bool {
	if !metav1.IsControlledBy(r, c) {
		return false
	}
	return r.Labels[serving.ConfigurationGenerationLabelKey] == strconv.FormatInt(c.Generation, 10) ||
		sameSpec(&c.Spec.Template.Spec, &r.Spec)
}

// merge adds the values of extra that are not empty to m.
func merge(m, extra map[string]string) map[string]string {
	if m == nil {
		m = make(map[string]string, len(extra))
	}
	maps.DeleteFunc(extra, func(_, value string) bool { return value == "" })
	maps.Copy(m, extra)
	return m
}
