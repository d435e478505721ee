package route

import (
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// Mesh carries the traffic of routes. It learns of them from their status.
type Mesh interface {
	// RouteProgrammed says whether the proxies send traffic as the status of route asks, and why not yet, in words for its
	// user. The route has been read from the API server with that status. It may be called concurrently and must not block.
	RouteProgrammed(route *servingv1.Route) (programmed bool, why string)
	// Changes delivers the routes for which the answer may have changed. It is called once.
	Changes() <-chan event.GenericEvent
}
