// Package activator holds requests while no instance has room for them. A Gate stands before the endpoints of one backend: a request
// enters at once when an endpoint has room, else it is parked in a bounded queue, first come first served, and the autoscaler is
// told when there is no instance at all. It is a stage inside the proxy, not a hop, and is called by the proxy's dispatch filter. It
// knows nothing of HTTP and imports nothing of Kubernetes or the autoscaler.
package activator
