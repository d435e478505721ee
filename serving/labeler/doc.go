// Package labeler notes on revisions and configurations which routes send them traffic, by the label
// serving.knative.dev/routingState and the annotations routes and routingStateModified. The autoscaler learns from them
// whether a revision can be reached, and the garbage collector what is in use. serving.AddToManager runs it.
package labeler
