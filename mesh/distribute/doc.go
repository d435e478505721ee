// Package distribute sends the resources of mesh/config to proxies over delta ADS, the incremental aggregated xDS transport, and
// knows which proxy has acknowledged which content. The compilers (mesh/knative, mesh/discovery) call Apply; serving asks Acked
// before it reports a Route as programmed; the proxy's half is the package client below this one. It must not import Kubernetes,
// and nothing in it depends on what a resource means, only on the order of config.Types.
//
// Why not the caches of go-control-plane: its watches are re-armed per type by the acknowledgement of that type, so an Endpoints
// update that waits for one can be overtaken by the Route that needs it, and each change walks and copies the version map of the
// whole collection. Here a change costs what changed, and a round of changes reaches a proxy in one order: what a route names is
// sent before the route, and is removed after it.
package distribute
