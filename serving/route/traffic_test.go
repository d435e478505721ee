package route

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// conf returns a configuration whose latest ready revision is named, and whose latest one has failed if it has none.
func conf(name, latestReady string) *servingv1.Configuration {
	c := &servingv1.Configuration{}
	c.Name = name
	c.Status.InitializeConditions()
	c.Status.SetLatestCreatedRevisionName(name + "-00009")
	if latestReady != "" {
		c.Status.SetLatestReadyRevisionName(latestReady)
	}
	return c
}

// rev returns a revision in a state: "ready", "failed" or "starting".
func rev(name, owner, state string) *servingv1.Revision {
	r := &servingv1.Revision{}
	r.Name = name
	r.Labels = map[string]string{serving.ConfigurationLabelKey: owner, serving.ServiceLabelKey: owner}
	r.Status.InitializeConditions()
	switch state {
	case "ready":
		r.Status.MarkResourcesAvailableTrue()
		r.Status.MarkContainerHealthyTrue()
	case "failed":
		r.Status.MarkContainerHealthyFalse("ExitCode1", "")
	}
	return r
}

// latest and pinned are targets of a spec.
func latest(configuration string, percent int64, tag string) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{ConfigurationName: configuration, LatestRevision: new(true), Percent: &percent, Tag: tag}
}

func pinned(revision string, percent int64, tag string) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{RevisionName: revision, LatestRevision: new(false), Percent: &percent, Tag: tag}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	failed := conf("failed", "")
	failed.Status.MarkLatestCreatedFailed("failed-00009", "broken")
	in := Referred{
		Configurations: map[string]*servingv1.Configuration{
			"a": conf("a", "a-2"), "new": conf("new", ""), "failed": failed, "lost": conf("lost", "lost-1"), "sick": conf("sick", "sick-1"),
		},
		Revisions: map[string]*servingv1.Revision{
			"a-1": rev("a-1", "a", "ready"), "a-2": rev("a-2", "a", "ready"), "a-3": rev("a-3", "a", "starting"),
			"a-4": rev("a-4", "a", "failed"), "b-1": rev("b-1", "b", "ready"), "sick-1": rev("sick-1", "sick", "failed"),
		},
	}
	tests := []struct {
		name    string
		traffic []servingv1.TrafficTarget
		service string
		want    []string
		// wantProblem is "<status> <reason>: <message>" of AllTrafficAssigned.
		wantProblem string
	}{
		{name: "latest", traffic: []servingv1.TrafficTarget{latest("a", 100, "")}, want: []string{"a-2 100% latest"}},
		{
			name: "split with tags", traffic: []servingv1.TrafficTarget{pinned("a-1", 90, "current"), latest("a", 10, "next")},
			want: []string{"a-1 90% current", "a-2 10% next latest"},
		},
		{
			name: "a tag without traffic", traffic: []servingv1.TrafficTarget{latest("a", 100, ""), pinned("a-1", 0, "old")},
			want: []string{"a-2 100% latest", "a-1 0% old"},
		},
		{
			name: "equal targets are one", traffic: []servingv1.TrafficTarget{pinned("a-1", 30, ""), pinned("a-1", 20, ""), pinned("a-2", 50, "")},
			want: []string{"a-1 50%", "a-2 50%"},
		},
		{
			name: "latest and pinned are not equal", traffic: []servingv1.TrafficTarget{pinned("a-2", 30, ""), latest("a", 70, "")},
			want: []string{"a-2 30%", "a-2 70% latest"},
		},
		{
			name: "another service's revision, by a route of its own", traffic: []servingv1.TrafficTarget{pinned("a-1", 100, "")},
			want: []string{"a-1 100%"},
		},
		{
			name: "another service's revision", traffic: []servingv1.TrafficTarget{pinned("a-1", 100, "")}, service: "b",
			wantProblem: `False RevisionNotOwned: Revision "a-1" belongs to Service "a", not Service "b".`,
		},
		{
			name: "missing revision", traffic: []servingv1.TrafficTarget{pinned("none", 100, "")},
			wantProblem: `False RevisionMissing: Revision "none" referenced in traffic not found.`,
		},
		{
			name: "missing configuration", traffic: []servingv1.TrafficTarget{latest("none", 100, "")},
			wantProblem: `False ConfigurationMissing: Configuration "none" referenced in traffic not found.`,
		},
		{
			name: "configuration without a ready revision", traffic: []servingv1.TrafficTarget{latest("new", 100, "")},
			wantProblem: `Unknown RevisionMissing: Configuration "new" is waiting for a Revision to become ready.`,
		},
		{
			name: "configuration that failed", traffic: []servingv1.TrafficTarget{latest("failed", 100, "")},
			wantProblem: `False RevisionMissing: Configuration "failed" does not have any ready Revision.`,
		},
		{
			name: "latest ready revision deleted", traffic: []servingv1.TrafficTarget{latest("lost", 100, "")},
			wantProblem: `False RevisionMissing: Revision "lost-1" referenced in traffic not found.`,
		},
		{
			name: "latest ready revision failed", traffic: []servingv1.TrafficTarget{latest("sick", 100, "")},
			wantProblem: `False RevisionMissing: Revision "sick-1" failed to become ready.`,
		},
		{
			name: "starting revision", traffic: []servingv1.TrafficTarget{pinned("a-3", 100, "")},
			wantProblem: `Unknown RevisionMissing: Revision "a-3" is not yet ready.`,
		},
		{
			name: "revision of a deleted configuration", traffic: []servingv1.TrafficTarget{pinned("b-1", 100, "")},
			wantProblem: `False ConfigurationMissing: Configuration "b" referenced in traffic not found.`,
		},
		{
			name: "a failure is told before what may come", traffic: []servingv1.TrafficTarget{pinned("a-4", 50, ""), pinned("a-3", 50, "")},
			wantProblem: `False RevisionMissing: Revision "a-4" failed to become ready.`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &servingv1.Route{Spec: servingv1.RouteSpec{Traffic: tt.traffic}}
			if tt.service != "" {
				r.Labels = map[string]string{serving.ServiceLabelKey: tt.service}
			}
			targets, problem := Resolve(r, in)
			if diff := cmp.Diff(tt.want, brief(targets)); diff != "" {
				t.Errorf("traffic (-want +got):\n%s", diff)
			}
			got := ""
			if problem != nil {
				problem.Mark(&r.Status)
				c := r.Status.GetCondition(servingv1.RouteConditionAllTrafficAssigned)
				got = fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
			}
			if got != tt.wantProblem {
				t.Errorf("problem is %q, want %q", got, tt.wantProblem)
			}
		})
	}
}

// brief writes targets as "<revision> <percent>% [<tag>] [latest]".
func brief(targets []servingv1.TrafficTarget) []string {
	var out []string
	for i := range targets {
		s := fmt.Sprintf("%s %d%%", targets[i].RevisionName, *targets[i].Percent)
		if targets[i].Tag != "" {
			s += " " + targets[i].Tag
		}
		if targets[i].LatestRevision != nil && *targets[i].LatestRevision {
			s += " latest"
		}
		out = append(out, s)
	}
	return out
}
