// Package pki makes and renews the certificates of a single-machine control plane: one authority for the API and everything that
// talks to it, one for the API server's front proxy, and a key that signs service account tokens. Package embedded calls Ensure when it
// starts and once a day; whoever serves or presents a certificate reads it from the files, so a renewal needs no restart.
// It imports nothing of Kubernetes.
package pki
