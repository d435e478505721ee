// Package stats measures what containers and the machine use of processor and memory: a Reader reads the kernel's counters (cgroup
// version 1, 2 or a hybrid of both, and /proc), a Meter makes rates of them when somebody asks. Nothing runs between two
// questions. node calls it for the kubelet API and for metrics.k8s.io. It must not import the Kubernetes client.
package stats
