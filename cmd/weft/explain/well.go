package explain

import (
	"fmt"

	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/autoscaler/settings"
	"github.com/weft-dev/weft/serving/gc"
)

// mostKept is how many revisions without traffic are listed.
const mostKept = 5

// wellness is the summary of an object that has nothing wrong.
func (e *explainer) wellness() string {
	switch e.Target.Kind {
	case Service, Route, DomainMapping:
		if e.Mapping != nil && e.Mapping.Status.URL != nil {
			return "ready at " + e.Mapping.Status.URL.String()
		}
		if e.Route != nil && e.Route.Status.URL != nil {
			return "ready at " + e.Route.Status.URL.String()
		}
	case Revision:
		if len(e.Revisions) > 0 && e.Revisions[0].Autoscaler != nil {
			return "ready, " + e.instances(&e.Revisions[0]).count
		}
	case Configuration, Pod:
	}
	return "ready"
}

// wellFacts says of an object that is well where its traffic goes, why it has so many instances, and what is kept.
func (e *explainer) wellFacts() {
	if e.Route != nil {
		e.report.Facts = append(e.report.Facts, e.traffic(e.Route))
	}
	for i := range e.Revisions {
		if r := &e.Revisions[i]; r.Autoscaler != nil {
			e.report.Facts = append(e.report.Facts, e.instances(r).text())
			if e.Target.Kind == Revision && settings.Mine(r.Autoscaler) {
				e.report.Facts = append(e.report.Facts, bounds(settings.Of(r.Autoscaler, e.config.Autoscaler, e.config.Deployment.ProgressDeadline)))
			}
		}
		for j := range e.Revisions[i].Pods {
			p := &e.Revisions[i].Pods[j]
			if text := restarts(p); text != "" {
				e.report.Facts = append(e.report.Facts, "pod "+p.Name+" is ready"+text)
			}
		}
	}
	e.kept()
}

// kept says why revisions without traffic are still there. The revision that is asked about is explained in any case.
func (e *explainer) kept() {
	if e.Configuration == nil {
		return
	}
	shown, more := 0, 0
	for i := range e.All {
		r := &e.All[i]
		if e.Target.Kind == Revision && r.Name != e.Target.Name || e.Target.Kind != Revision && e.serves(r.Name) {
			continue
		}
		if shown == mostKept {
			more++
			continue
		}
		shown++
		fact := r.Name + " is " + gc.Explain(r, e.Configuration, e.All, e.config.GC, e.now)
		if r.GetRoutingState() == servingv1.RoutingStateReserve {
			fact += "; no route leads to it"
		}
		e.report.Facts = append(e.report.Facts, fact)
	}
	if more > 0 {
		e.report.Facts = append(e.report.Facts, fmt.Sprintf("and %s without traffic are kept; weft explain revision/NAME says why", plural(more, "more revision", "more revisions")))
	}
}

// serves says whether the route sends traffic to a revision.
func (e *explainer) serves(name string) bool {
	if e.Route == nil {
		return false
	}
	for i := range e.Route.Status.Traffic {
		if e.Route.Status.Traffic[i].RevisionName == name {
			return true
		}
	}
	return false
}
