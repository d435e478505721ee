// Package knative compiles Knative Routes and the Revisions that they name into mesh resources: one config.Route per Route, one
// config.Backend per revision that some Route names; and DomainMappings into one config.Route each, which takes over the rules of its
// target. The control plane adds it to its manager; serving/route and serving/domainmapping ask it whether an object has reached the
// proxies. Endpoints are not its business but that of mesh/discovery. It must not import serving/ (which imports it) nor anything of
// the data plane.
package knative
