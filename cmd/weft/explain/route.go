package explain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

const (
	reasonRollout = "RolloutInProgress"
	// rolloutAnnotation of a Route's status holds the pace of rollouts; see serving/route.
	rolloutAnnotation = "networking.internal.knative.dev/rollout"
	visibilityLabel   = "networking.knative.dev/visibility"
)

func (e *explainer) route(r *servingv1.Route) Link {
	l := of("Route", r.Name, r.Status.GetCondition(servingv1.RouteConditionReady), "")
	if e.unseen(&l, r, r.Status.ObservedGeneration) {
		return l
	}
	assigned := r.Status.GetCondition(servingv1.RouteConditionAllTrafficAssigned)
	ingress := r.Status.GetCondition(servingv1.RouteConditionIngressReady)
	certificate := r.Status.GetCondition(servingv1.RouteConditionCertificateProvisioned)
	switch {
	case l.State == OK:
		l.Says = urlOf(r) + ": " + e.traffic(r) + "; the proxies have it"
	case !assigned.IsTrue():
		e.unassigned(&l, r, assigned)
	case ingress.GetReason() == reasonNotOwned:
		l.Cause = fmt.Sprintf("the Kubernetes Service %q, which is not the route's, holds its name", r.Name)
		if e.Foreign != nil {
			l.Since = e.Foreign.CreationTimestamp.Time
		}
		l.Next = []string{
			fmt.Sprintf("%s get service %s -n %s -o yaml", e.Kubectl, r.Name, r.Namespace),
			"delete or rename it, or give the Knative service another name",
		}
	case ingress.GetReason() == reasonRollout:
		l.State, l.Says = Waiting, "rollout in progress: "+e.traffic(r)
		l.Cause = "a rollout is in progress: " + e.rollout(r)
		l.Next = []string{fmt.Sprintf("%s get route %s -n %s -w", e.Kubectl, r.Name, r.Namespace)}
	case !ingress.IsTrue():
		l.Cause = e.ingressCause(&l, ingress, "the route")
	case !certificate.IsTrue():
		l.Cause = "there is no certificate: " + oneLine(certificate.GetMessage())
		l.Next = []string{e.describe("route", r.Name)}
	}
	return l
}

// unassigned explains traffic that has nowhere to go. A revision that is not ready has a link of its own, with the cause.
func (e *explainer) unassigned(l *Link, r *servingv1.Route, c *apis.Condition) {
	for i := range r.Spec.Traffic {
		name := r.Spec.Traffic[i].RevisionName
		if name == "" || slices.ContainsFunc(e.Revisions, func(x RevisionObjects) bool { return x.Revision.Name == name }) {
			continue
		}
		l.State = Broken
		l.Cause = fmt.Sprintf("the traffic names revision %q, which does not exist", name)
		var have []string
		for j := range e.All {
			have = append(have, e.All[j].Name)
		}
		if len(have) > 0 {
			l.Details = []string{"there are " + strings.Join(have, ", ")}
		}
		l.Next = []string{"correct spec.traffic; `latestRevision: true` follows the latest one"}
		return
	}
	switch c.GetReason() {
	case "ConfigurationMissing":
		l.Cause = "the traffic names a configuration that does not exist: " + trimPeriod(c.GetMessage())
		l.Next = []string{fmt.Sprintf("%s get configurations -n %s", e.Kubectl, r.Namespace)}
	case "RevisionNotOwned":
		l.Cause = "the traffic names a revision of another service: " + trimPeriod(c.GetMessage())
		l.Next = []string{"use a Route of your own to send traffic to several services, or correct spec.traffic"}
	case "ErrorConfig":
		l.Cause = "no URL can be made: " + trimPeriod(c.GetMessage())
		l.Next = []string{e.Kubectl + " edit configmap config-network -n knative-serving"}
	case "Unknown":
		l.Cause = trimPeriod(c.GetMessage())
	}
}

// ingressCause explains why the proxies do not carry the traffic yet.
func (e *explainer) ingressCause(l *Link, c *apis.Condition, what string) string {
	message := trimPeriod(c.GetMessage())
	switch {
	case strings.Contains(message, "belongs to"):
		l.State = Broken
		l.Next = []string{e.Kubectl + " get route,domainmapping --all-namespaces", "delete one of the two, or change its name or domain"}
		return "another route has the host: " + message
	case strings.Contains(message, "rejected"):
		l.State = Broken
		l.Next = []string{"weft status   # and the proxy's log, which it names"}
		return "a proxy refuses " + what + ": " + message
	case strings.Contains(message, "no proxy is connected"):
		l.State = Broken
		l.Next = []string{"weft status   # does weft-proxy run?"}
		return "no proxy runs that could carry the traffic"
	case message == "" || strings.Contains(message, "not yet been reconciled"):
		return "the proxies do not have " + what + " yet"
	}
	return "the proxies do not have " + what + " yet: " + message
}

// traffic is the route in one line: who answers, and who reaches it.
func (e *explainer) traffic(r *servingv1.Route) string {
	var parts []string
	for i := range r.Status.Traffic {
		t := &r.Status.Traffic[i]
		part := t.RevisionName
		if t.Percent != nil {
			part = fmt.Sprintf("%d %% to %s", *t.Percent, t.RevisionName)
		}
		if t.LatestRevision != nil && *t.LatestRevision {
			part += " (latest)"
		}
		if t.Tag != "" {
			part += fmt.Sprintf(" as %s", t.Tag)
			if t.URL != nil {
				part += " at " + t.URL.String()
			}
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%s, %s", strings.Join(parts, ", "), visibility(r))
}

func urlOf(r *servingv1.Route) string {
	if r.Status.URL == nil {
		return "no URL yet"
	}
	return r.Status.URL.String()
}

func visibility(r *servingv1.Route) string {
	if r.Labels[visibilityLabel] == "cluster-local" {
		return "reached from pods only"
	}
	return "reached from outside and from pods"
}

// rollout says how far the rollouts of a route are and when they go on.
func (e *explainer) rollout(r *servingv1.Route) string {
	var paces map[string]struct {
		Start time.Time
		Size  int64
		Next  time.Time
	}
	text := ""
	for i := range r.Status.Traffic {
		if t := &r.Status.Traffic[i]; t.Percent != nil {
			text += fmt.Sprintf(", %d %% at %s", *t.Percent, t.RevisionName)
		}
	}
	text = strings.TrimPrefix(text, ", ")
	if json.Unmarshal([]byte(r.Status.Annotations[rolloutAnnotation]), &paces) != nil {
		return text
	}
	for _, p := range paces {
		if p.Next.IsZero() {
			return text + "; the next step comes when the proxies have this one"
		}
		return text + fmt.Sprintf("; the next %d %% move in %s", p.Size, short(p.Next.Sub(e.now)))
	}
	return text
}

// meanwhile adds who serves although something is wrong.
func (e *explainer) meanwhile() {
	r := e.Route
	if r == nil || e.Target.Kind == Pod || r.Status.GetCondition(servingv1.RouteConditionReady).IsTrue() && e.ready() {
		return
	}
	switch {
	case len(r.Status.Traffic) == 0:
		e.report.Facts = append(e.report.Facts, "nothing serves "+urlOf(r)+" now")
	case r.Status.GetCondition(servingv1.RouteConditionIngressReady).GetReason() != reasonRollout:
		e.report.Facts = append(e.report.Facts, "meanwhile "+urlOf(r)+" serves "+e.traffic(r))
	}
}

// ready says whether the object that was asked about calls itself ready.
func (e *explainer) ready() bool {
	switch e.Target.Kind {
	case Service:
		return e.Service.IsReady()
	case Configuration:
		return e.Configuration.IsReady()
	case Route:
		return e.Route.IsReady()
	case DomainMapping:
		return e.Mapping.IsReady()
	case Revision:
		return len(e.Revisions) > 0 && e.Revisions[0].Revision.IsReady()
	case Pod:
		return len(e.Revisions) > 0 && len(e.Revisions[0].Pods) > 0 && isReady(&e.Revisions[0].Pods[0])
	}
	return false
}
