// Package knative compiles Knative Routes and the Revisions that they name into mesh resources: one config.Route per Route, one
// config.Backend per revision that some Route names. The control plane adds it to its manager; serving/route asks it whether a
// Route has reached the proxies. Endpoints are not its business but that of mesh/discovery. It must not import serving/ (which
// imports it) nor anything of the data plane.
package knative
