// Package telemetry measures what goes through a proxy: the Prometheus metrics of its requests, and the load reports (load.proto)
// that tell the autoscaler how many requests each revision has. It belongs to the data plane and imports neither Kubernetes nor
// the autoscaler.
package telemetry
