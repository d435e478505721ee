// Package hpa hands PodAutoscalers of class hpa.autoscaling.knative.dev over to Kubernetes' HorizontalPodAutoscalers: it keeps one of the
// revision's name, reports what it says in the PodAutoscaler's status, and leaves an Event for each change of scale that says why.
// The controller in autoscaler/scale calls it and writes the status. It decides no number of instances itself, but for one: such a
// revision never stays at zero, where Kubernetes' controller does nothing. It must not import autoscaler/kpa.
package hpa
