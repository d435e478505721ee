// Package embedded runs a Kubernetes control plane in this process: etcd, kube-apiserver, chosen controllers of
// kube-controller-manager and kube-scheduler, with certificates that it makes itself. `weft up` runs it, tests of controllers may.
// Only it and cmd/weft import k8s.io/kubernetes; it imports no controller of Weft.
package embedded
