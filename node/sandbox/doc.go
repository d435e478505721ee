// Package sandbox makes the network of the pods of this machine: the bridge, the address translation, and for each pod a network
// namespace with an address, taken from a pool that is kept warm because making one costs more than starting a container. The
// node agent calls it. It must not import the Kubernetes client.
package sandbox
