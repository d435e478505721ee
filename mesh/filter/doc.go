// Package filter is the path of a request through the proxy: the Exchange that the filters pass along, the interface that they
// implement, and the one place where errors become responses. Each filter is a package below this one; the proxy arranges them.
// Filters import neither the proxy nor Kubernetes.
package filter
