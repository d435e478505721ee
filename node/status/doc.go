// Package status computes what the API says about a pod (phase, conditions and container statuses) from what the node agent knows
// about it. It is pure: no I/O and no clock, so that every reason and message that users and controllers match on is checked by
// tables. node/pod calls it. It must not import the Kubernetes client.
package status
