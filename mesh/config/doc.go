// Package config holds the resources that the control plane sends to proxies (mesh.proto) and the names by which the two sides
// find them. The control plane compiles API objects into them by pure functions; the proxy reads them and nothing else. It is
// imported by both sides and therefore imports neither Kubernetes nor the proxy.
package config
