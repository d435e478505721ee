// Package dns is the name server of the pods: names of Services from config.Service resources, the public domain of the platform as
// the gateway's address, and everything else from the machine's own name servers. cmd/proxy runs it on the gateway's address. The
// schema is that of Kubernetes DNS-based service discovery, version 1.1. It belongs to the data plane and must import neither Kubernetes
// nor the control plane.
package dns
