// Package server is the kubelet API of a node: logs, exec, attach, port-forward and what pods use, as kube-apiserver calls them for kubectl. node
// calls it. It must not import the Kubernetes client.
package server
