// Package capture carries what pods and host processes send to cluster IPs. One half (Install, Remove) is called by weft and makes the
// kernel deliver such traffic to the proxy; the other (Server) is run by cmd/proxy, learns Services and Endpoints by Apply, and takes
// each connection, with its source and original destination, to a ready endpoint.
//
// TCP arrives by destination NAT at one listener, because there are as many cluster IPs and ports as users like. UDP has no way to ask
// for the original destination after NAT, and transparent proxying does not work on a bridge where the host filters bridged
// packets, as every machine with Docker does. A local route for the service network makes cluster IPs addresses of this machine
// instead, and the proxy opens a socket per UDP port of a Service, of which there are few.
//
// It belongs to the data plane and must import neither Kubernetes nor the control plane.
package capture
