package explain

import (
	"fmt"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// revision adds the links of a revision and of what it is made of. The revision comes first, though its pods are looked at
// before: what they explain it need not.
func (e *explainer) revision(r *RevisionObjects) {
	rev := r.Revision
	var below []Link
	if r.Deployment != nil {
		below = append(below, e.deployment(r))
	}
	for i := range r.Pods {
		below = append(below, e.pod(r, &r.Pods[i]))
	}
	if r.Autoscaler != nil {
		below = append(below, e.autoscaler(r))
	}
	l := of("Revision", rev.Name, rev.Status.GetCondition(servingv1.RevisionConditionReady), "ready")
	explained := false
	for i := range below {
		explained = explained || below[i].Cause != "" && below[i].State != OK
	}
	if !e.unseen(&l, rev, rev.Status.ObservedGeneration) && l.State != OK && !explained {
		e.unready(&l, rev)
	}
	e.add(l)
	for _, b := range below {
		e.add(b)
	}
}

// unready explains a revision by its own conditions.
func (e *explainer) unready(l *Link, r *servingv1.Revision) {
	resources := r.Status.GetCondition(servingv1.RevisionConditionResourcesAvailable)
	container := r.Status.GetCondition(servingv1.RevisionConditionContainerHealthy)
	switch {
	case container.GetReason() == servingv1.ReasonContainerMissing:
		image, answer := unfetched(container.GetMessage())
		l.Cause = fmt.Sprintf("image %q cannot be found: %s", image, answer)
		l.Next = imageNext(image)
	case container.IsFalse():
		l.Cause = trimPeriod(container.GetMessage())
	case resources.GetReason() == servingv1.ReasonResolvingDigests:
		l.Cause = "the registry is being asked for the digest of the image"
	case resources.GetReason() == reasonNotOwned:
		l.Cause = trimPeriod(resources.GetMessage())
		l.Next = []string{fmt.Sprintf("delete what has the name, or make a new revision of another name than %q", r.Name)}
	case resources.GetReason() == "FailedCreate":
		refusal(l, resources.GetMessage())
	case resources.GetReason() == servingv1.ReasonProgressDeadlineExceeded:
		l.Cause = "no instance became ready before the progress deadline: " + trimPeriod(resources.GetMessage())
	case resources.IsFalse():
		l.Cause = said(resources.GetReason(), trimPeriod(resources.GetMessage()))
	}
	if l.Cause != "" && len(l.Next) == 0 {
		l.Next = []string{e.describe("revision", r.Name)}
	}
}

var unableToFetch = regexp.MustCompile(`^Unable to fetch image "([^"]*)": (.*)$`)

// unfetched takes the image and the registry's answer out of the message that Knative makes of them.
func unfetched(message string) (image, answer string) {
	message = trimPeriod(message)
	match := unableToFetch.FindStringSubmatch(message)
	if match == nil {
		return "", message
	}
	return match[1], strings.TrimPrefix(match[2], "failed to resolve image to digest: ")
}

func imageNext(image string) []string {
	next := []string{fmt.Sprintf("weft image build %s PATH   # or push it to its registry", image)}
	return append(next, "correct the image's name; for a private registry, add a pull secret to the service account")
}

// refusal explains what admission or a quota refuses to create.
func refusal(l *Link, message string) {
	message = trimPeriod(message)
	switch {
	case strings.Contains(message, "exceeded quota"):
		_, detail, _ := strings.Cut(message, "exceeded quota: ")
		l.Cause = "the quota of the namespace has no room for another pod: " + detail
		l.Next = []string{"raise the quota, or lower resources of the containers"}
	case strings.Contains(message, "webhook"):
		l.Cause = "a webhook refuses the pod: " + message
		l.Next = []string{"correct what the webhook names, or the webhook"}
	default:
		l.Cause = "the pod is refused: " + message
		l.Next = []string{"correct what the message names"}
	}
}

func (e *explainer) deployment(r *RevisionObjects) Link {
	d := r.Deployment
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	l := Link{Kind: "Deployment", Name: d.Name, State: OK, Since: d.CreationTimestamp.Time}
	l.Says = fmt.Sprintf("%d of %d pods ready", d.Status.ReadyReplicas, wanted)
	if d.Status.ReadyReplicas >= wanted {
		return l
	}
	l.State = Waiting
	for _, c := range d.Status.Conditions {
		switch {
		case c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue:
			l.State, l.Since = Broken, c.LastTransitionTime.Time
			refusal(&l, c.Message)
			l.Next = append(l.Next, fmt.Sprintf("%s describe resourcequota,limitrange -n %s", e.Kubectl, d.Namespace))
		case c.Type == appsv1.DeploymentProgressing && c.Reason == servingv1.ReasonProgressDeadlineExceeded && len(r.Pods) == 0:
			l.State, l.Since = Broken, c.LastTransitionTime.Time
			l.Cause = "no pod became ready before the progress deadline: " + trimPeriod(c.Message)
			l.Next = []string{e.describe("deployment", d.Name)}
		}
	}
	if l.Cause == "" && len(r.Pods) == 0 {
		l.Cause = fmt.Sprintf("%s wanted, and no pod has been made yet", plural(int(wanted), "pod is", "pods are"))
		l.Next = []string{e.describe("deployment", d.Name)}
	}
	return l
}
