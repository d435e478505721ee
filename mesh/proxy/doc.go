// Package proxy is the data plane: it accepts requests, finds the backend that the configuration names for them and sends them through
// the filters to an instance. cmd/proxy runs it. Configuration comes by Apply and takes effect without a restart; the request path
// reads immutable snapshots and takes no lock. It must not import Kubernetes, controller-runtime, serving or autoscaler.
package proxy
