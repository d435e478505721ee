// Package image keeps OCI images on this machine: it pulls them from registries, imports them from archives, builds them from Go
// main packages, and holds their layers unpacked for overlayfs. The node agent and `weft image` call it, possibly at the same time
// from two processes. It must not import the Kubernetes client.
package image
