// Package discovery turns what runs and what has a name in the cluster into mesh resources: Pods of Knative revisions into Endpoints,
// Kubernetes Services with their EndpointSlices into Services, Backends and Endpoints. It also publishes the proxies' listeners and
// keeps the Service by which pods reach the cluster-local one. The control plane adds it to its manager.
//
// Pods and EndpointSlices are not reconciled through a work queue: a request may be parked until the Endpoints arrive, so informer
// events are compiled where they come in. It must not import serving/ nor anything of the data plane.
package discovery
