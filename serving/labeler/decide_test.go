package labeler

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func TestUses(t *testing.T) {
	t.Parallel()
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello"}}
	c.Status.LatestCreatedRevisionName = "hello-00003"
	revision := func(name string) *servingv1.Revision {
		return &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{
			Name: name, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(c, c.GetGroupVersionKind())},
		}}
	}
	find := Lookup{
		Revision: func(name string) *servingv1.Revision {
			if name == "gone" {
				return nil
			}
			return revision(name)
		},
		Configuration: func(name string) *servingv1.Configuration {
			if name == "hello" {
				return c
			}
			return nil
		},
	}
	latest := servingv1.TrafficTarget{ConfigurationName: "hello", LatestRevision: new(true)}
	tests := []struct {
		name         string
		spec, status []servingv1.TrafficTarget
		want         []string
	}{
		{name: "the revision that is about to be the latest", spec: []servingv1.TrafficTarget{latest}, want: []string{"hello-00003"}},
		{
			name: "where traffic still goes", spec: []servingv1.TrafficTarget{latest},
			status: []servingv1.TrafficTarget{{RevisionName: "hello-00002", LatestRevision: new(true)}},
			want:   []string{"hello-00002", "hello-00003"},
		},
		{name: "pinned", spec: []servingv1.TrafficTarget{{RevisionName: "hello-00001"}}, want: []string{"hello-00001"}},
		{name: "missing", spec: []servingv1.TrafficTarget{{RevisionName: "gone"}, {ConfigurationName: "none"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &servingv1.Route{Spec: servingv1.RouteSpec{Traffic: tt.spec}}
			r.Status.Traffic = tt.status
			used := Uses(r, find)
			if diff := cmp.Diff(tt.want, slices.Sorted(maps.Keys(used.Revisions))); diff != "" {
				t.Errorf("revisions (-want +got):\n%s", diff)
			}
			if len(tt.want) > 0 && !used.Configurations["hello"] {
				t.Errorf("configurations are %v, want the owner of the revisions", used.Configurations)
			}
		})
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const stamp = "2026-01-02T03:04:05Z"
	tests := []struct {
		name        string
		list        string // of routes
		state       servingv1.RoutingState
		used        bool
		wantList    string
		wantState   servingv1.RoutingState
		wantTouched bool
	}{
		{name: "first route", state: servingv1.RoutingStatePending, used: true, wantList: "me", wantState: servingv1.RoutingStateActive, wantTouched: true},
		{name: "second route", list: "other", state: servingv1.RoutingStateActive, used: true, wantList: "me,other", wantState: servingv1.RoutingStateActive},
		{name: "again", list: "me", state: servingv1.RoutingStateActive, used: true, wantList: "me", wantState: servingv1.RoutingStateActive},
		{name: "one of two goes", list: "me,other", state: servingv1.RoutingStateActive, wantList: "other", wantState: servingv1.RoutingStateActive},
		{name: "the last goes", list: "me", state: servingv1.RoutingStateActive, wantState: servingv1.RoutingStateReserve, wantTouched: true},
		{name: "none", state: servingv1.RoutingStateReserve, wantState: servingv1.RoutingStateReserve},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &servingv1.Revision{}
			r.SetRoutingState(tt.state, time.Unix(0, 0))
			if tt.list != "" {
				r.Annotations[serving.RoutesAnnotationKey] = tt.list
			}
			note(r, "me", tt.used)
			noteState(r, now)
			list, noted := r.Annotations[serving.RoutesAnnotationKey]
			if list != tt.wantList || noted != (tt.wantList != "") {
				t.Errorf("routes are %q (present: %v), want %q", list, noted, tt.wantList)
			}
			if got := r.GetRoutingState(); got != tt.wantState {
				t.Errorf("state is %q, want %q", got, tt.wantState)
			}
			if touched := r.Annotations[serving.RoutingStateModifiedAnnotationKey] == stamp; touched != tt.wantTouched {
				t.Errorf("the time of the state has changed: %v, want %v", touched, tt.wantTouched)
			}
		})
	}
}
