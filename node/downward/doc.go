// Package downward reads the fields of a pod that its containers may ask for, in environment variables and in volumes. node/env and
// node/volume call it. It is pure and must not import the Kubernetes client.
package downward
