// Package container runs OCI containers by crun or runc and keeps their logs and exit codes through a restart of weft. The node
// agent calls it. It must not import the Kubernetes client.
package container
