// Package node is the node agent: it registers this machine as a Kubernetes Node, runs the Pods that are bound to it through an OCI
// runtime, and serves the kubelet API for logs, exec and port-forward. cmd/weft calls it in the single-machine mode. It must not
// import k8s.io/kubernetes, nor any other part of Weft than the packages below node and internal/instance.
package node
