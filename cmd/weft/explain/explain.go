// Package explain says why an object is as it is: it follows the chain Service, Configuration, Revision, Deployment, Pod,
// PodAutoscaler, Route, and finds the first link that is broken, its cause in a user's words, and what to do about it. Command
// weft explain calls it. Read gathers the objects from any Kubernetes API, Explain is a pure function of them, and Report.Print
// writes for people. It must not import Kubernetes itself: it sees what a user of kubectl sees.
package explain

import (
	"fmt"
	"time"

	"github.com/weft-dev/weft/serving/config"
)

// State is how a link does.
type State string

// The states, from good to bad. Waiting may become OK by itself; Broken does not, without a change.
const (
	OK      State = "ok"
	Waiting State = "waiting"
	Broken  State = "broken"
)

// Report is the answer. Its JSON form is part of the user's interface.
type Report struct {
	// Object is what was asked about, as TYPE/NAME.
	Object    string `json:"object"`
	Namespace string `json:"namespace"`
	State     State  `json:"state"`
	// Summary is one line: the cause, or that all is well.
	Summary string `json:"summary"`
	// Where is the link with the cause, and Since how long it has been so.
	Where string    `json:"where,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Details are lines that belong to the summary: log lines, messages of others.
	Details []string `json:"details,omitempty"`
	// Next are commands and changes that lead on.
	Next []string `json:"next,omitempty"`
	// Facts are what holds beside the cause: who serves meanwhile, why there are so many instances, what is kept.
	Facts []string `json:"facts,omitempty"`
	Links []Link   `json:"links"`
}

// Link is one object of the chain.
type Link struct {
	Kind  string    `json:"kind"`
	Name  string    `json:"name"`
	State State     `json:"state"`
	Since time.Time `json:"since,omitzero"`
	// Says is what the object reports, in one line.
	Says string `json:"says"`
	// Cause is set where something starts to be wrong; a link that only suffers from another has none.
	Cause   string   `json:"cause,omitempty"`
	Details []string `json:"details,omitempty"`
	Next    []string `json:"next,omitempty"`
}

// explainer is one explanation in the making.
type explainer struct {
	*Objects
	now    time.Time
	config *config.Snapshot
	report Report
}

// Explain finds the first broken link. It changes nothing that it is given.
func Explain(o *Objects, now time.Time) Report {
	e := &explainer{Objects: o, now: now}
	e.report = Report{Object: o.Target.String(), Namespace: o.Target.Namespace}
	refused := e.configMaps()
	if o.Mapping != nil {
		e.add(e.mapping(o.Mapping))
	}
	if o.Service != nil {
		e.add(e.service(o.Service))
	}
	if o.Configuration != nil {
		e.add(e.configuration(o.Configuration))
	}
	for i := range o.Revisions {
		e.revision(&o.Revisions[i])
	}
	if o.Route != nil {
		e.add(e.route(o.Route))
	}
	for _, l := range refused {
		e.add(l)
	}
	e.conclude()
	return e.report
}

func (e *explainer) add(l Link) { e.report.Links = append(e.report.Links, l) }

// conclude puts the first cause on top.
func (e *explainer) conclude() {
	r := &e.report
	first := e.first()
	subject := r.Object + " is "
	if first == nil {
		r.State = OK
		r.Summary = subject + e.wellness()
		e.wellFacts()
		return
	}
	r.State, r.Where, r.Since, r.Details, r.Next = first.State, first.Kind+"/"+first.Name, first.Since, first.Details, first.Next
	switch {
	case e.ready():
		subject += "ready, but "
	case first.State == Broken:
		subject += "not ready: "
	default:
		subject += "not ready yet: "
	}
	r.Summary = subject + first.Cause
	e.meanwhile()
	for i := range e.Revisions {
		if e.Revisions[i].Autoscaler != nil && e.Revisions[i].Deployment != nil {
			r.Facts = append(r.Facts, e.instances(&e.Revisions[i]).text())
		}
	}
}

// first is the first link with a cause, one that is broken before one that waits.
func (e *explainer) first() *Link {
	for _, state := range []State{Broken, Waiting} {
		for i := range e.report.Links {
			if l := &e.report.Links[i]; l.State == state && l.Cause != "" {
				return l
			}
		}
	}
	// Something is not well that no rule knows: its own words are all there is.
	for _, state := range []State{Broken, Waiting} {
		for i := range e.report.Links {
			if l := &e.report.Links[i]; l.State == state {
				l.Cause = l.Says
				return l
			}
		}
	}
	return nil
}

// describe is the command that shows an object whole.
func (e *explainer) describe(kind, name string) string {
	return fmt.Sprintf("%s describe %s %s -n %s", e.Kubectl, kind, name, e.Target.Namespace)
}
