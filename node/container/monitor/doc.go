// Package monitor is the small process that stays with one container: it starts the OCI runtime, is the parent of the container's
// first process, writes its output to the log, and records how it ended, all of which must survive the death of weft. cmd/shim
// runs it; package container starts it and shares the types of this package with it. Because one such process lives as long as
// every container, it must not import anything but small packages: no network, no HTTP, no Kubernetes, not package container.
package monitor
