// Package client is a proxy's half of the configuration transport: one delta ADS stream to the control plane that subscribes to every
// type of mesh/config, hands each response to an Applier and acknowledges it by the Applier's answer. It keeps no configuration,
// only versions, so that after a reconnect the control plane sends what differs and nothing else. cmd/proxy runs it. It belongs to
// the data plane and must import neither Kubernetes nor the server half.
package client
