// Package probe asks containers whether they are started, alive and ready. While a container is new it asks in steps of a few
// milliseconds, because the wait for the first success is part of every cold start. node/pod calls it. It must not import the
// Kubernetes client.
package probe
