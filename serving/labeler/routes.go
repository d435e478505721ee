package labeler

import (
	"slices"
	"strings"

	"knative.dev/serving/pkg/apis/serving"
)

// Routes returns the names of the routes that the annotation of a revision or configuration lists.
func Routes(annotations map[string]string) []string {
	if list := annotations[serving.RoutesAnnotationKey]; list != "" {
		return strings.Split(list, ",")
	}
	return nil
}

// Add returns list, the value of the annotation, with route in it. The list is sorted.
func Add(list, route string) string {
	routes := Routes(map[string]string{serving.RoutesAnnotationKey: list})
	if !slices.Contains(routes, route) {
		routes = append(routes, route)
	}
	slices.Sort(routes)
	return strings.Join(routes, ",")
}

// Remove returns list without route.
func Remove(list, route string) string {
	routes := Routes(map[string]string{serving.RoutesAnnotationKey: list})
	return strings.Join(slices.DeleteFunc(routes, func(r string) bool { return r == route }), ",")
}
