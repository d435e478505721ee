package gc

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

var now = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// rev returns a revision of a name, created and without a route for so many hours.
func rev(name string, created, idle int, options ...func(*servingv1.Revision)) servingv1.Revision {
	r := servingv1.Revision{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, CreationTimestamp: metav1.NewTime(now.Add(-time.Duration(created) * time.Hour)),
		Labels: map[string]string{serving.ConfigurationLabelKey: "hello"},
	}}
	r.SetRoutingState(servingv1.RoutingStateReserve, now.Add(-time.Duration(idle)*time.Hour))
	for _, o := range options {
		o(&r)
	}
	return r
}

func state(s servingv1.RoutingState) func(*servingv1.Revision) {
	return func(r *servingv1.Revision) { r.Labels[serving.RoutingStateLabelKey] = string(s) }
}

func note(key, value string) func(*servingv1.Revision) {
	return func(r *servingv1.Revision) { r.Annotations[key] = value }
}

// hello is a configuration whose latest ready revision is hello-00008 and which asks for hello-00009.
func hello() *servingv1.Configuration {
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello", UID: "uid", Generation: 9}}
	c.Status.LatestReadyRevisionName = "hello-00008"
	return c
}

func hours(n int) time.Duration { return time.Duration(n) * time.Hour }

func TestVerdicts(t *testing.T) {
	t.Parallel()
	const off = config.Disabled
	// Created and idle ages in hours; the times of the config map are 48 and 15.
	old, young := rev("hello-00001", 100, 20), rev("hello-00002", 40, 20)
	recent := rev("hello-00003", 100, 5)
	tests := []struct {
		name      string
		gc        config.GC
		revisions []servingv1.Revision
		want      string // each revision's outcome
		until     time.Duration
	}{
		{
			name: "ages", gc: config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{old, young, recent}, want: "stale created active", until: hours(8),
		},
		{
			name: "the minimum keeps the newest", gc: config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MinNonActiveRevisions: 2, MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{rev("hello-00003", 90, 50), rev("hello-00001", 100, 70), rev("hello-00002", 95, 60)}, want: "minimum stale minimum",
		},
		{
			name: "few enough wait for nothing", gc: config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MinNonActiveRevisions: 3, MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{old, young, recent}, want: "minimum minimum minimum",
		},
		{
			name: "a young one is not judged by how few are left", gc: config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MinNonActiveRevisions: 1, MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{old, young, recent}, want: "stale created active", until: hours(8),
		},
		{
			name: "only the creation counts", gc: config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: off, MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{old, young, recent}, want: "stale created stale", until: hours(8),
		},
		{
			name: "only the activity counts", gc: config.GC{RetainSinceCreateTime: off, RetainSinceLastActiveTime: hours(15), MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{old, young, recent}, want: "stale stale active", until: hours(10),
		},
		{
			name: "no age counts", gc: config.GC{RetainSinceCreateTime: off, RetainSinceLastActiveTime: off, MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{old, young, recent}, want: "ageless ageless ageless",
		},
		{
			name: "the maximum takes the oldest whatever their age", gc: config.GC{RetainSinceCreateTime: off, RetainSinceLastActiveTime: off, MaxNonActiveRevisions: 1},
			revisions: []servingv1.Revision{rev("hello-00003", 1, 1), rev("hello-00001", 3, 3), rev("hello-00002", 2, 2)}, want: "ageless excess excess",
		},
		{
			name: "the maximum counts what the ages leave", gc: config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MaxNonActiveRevisions: 1},
			revisions: []servingv1.Revision{old, young, recent}, want: "stale excess active", until: hours(10),
		},
		{
			name: "at once", gc: config.GC{}, revisions: []servingv1.Revision{rev("hello-00001", 0, 0)}, want: "stale",
		},
		{
			name: "the same second", gc: config.GC{RetainSinceCreateTime: off, RetainSinceLastActiveTime: off, MaxNonActiveRevisions: 1},
			revisions: []servingv1.Revision{rev("hello-00002", 3, 3), rev("hello-00001", 3, 3)}, want: "ageless excess",
		},
		{
			name: "in use", gc: config.GC{},
			revisions: []servingv1.Revision{
				rev("hello-00008", 100, 100), rev("hello-00009", 100, 100), rev("hello-00001", 100, 100, note(serving.RevisionPreservedAnnotationKey, "True")),
				rev("hello-00002", 100, 100, state(servingv1.RoutingStateActive)), rev("hello-00003", 100, 100, state(servingv1.RoutingStatePending)),
				rev("hello-00004", 100, 100, state(servingv1.RoutingStateUnset)),
			},
			want: "latestReady wanted preserved routed notReleased notReleased",
		},
		{
			name: "those in use do not count", gc: config.GC{MinNonActiveRevisions: 1, MaxNonActiveRevisions: 1},
			revisions: []servingv1.Revision{rev("hello-00008", 9, 9), rev("hello-00001", 5, 5), rev("hello-00002", 5, 4)}, want: "latestReady stale minimum",
		},
		{
			name: "not known when it lost its route", gc: config.GC{RetainSinceCreateTime: off, RetainSinceLastActiveTime: hours(15), MaxNonActiveRevisions: off},
			revisions: []servingv1.Revision{
				rev("hello-00001", 100, 1, note(serving.RoutingStateModifiedAnnotationKey, "")), rev("hello-00002", 1, 1, note(serving.RoutingStateModifiedAnnotationKey, "never")),
			},
			want: "stale active", until: hours(14),
		},
	}
	words := map[Cause]string{
		LatestReady: "latestReady", Wanted: "wanted", Preserved: "preserved", Routed: "routed", NotReleased: "notReleased",
		Minimum: "minimum", Ageless: "ageless", Created: "created", Active: "active", Stale: "stale", Excess: "excess",
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			var until time.Time
			for _, v := range Verdicts(hello(), tt.revisions, &tt.gc, now) {
				got = append(got, words[v.Cause])
				if !v.Until.IsZero() && (until.IsZero() || v.Until.Before(until)) {
					until = v.Until
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			want := time.Time{}
			if tt.until != 0 {
				want = now.Add(tt.until)
			}
			if !until.Equal(want) {
				t.Errorf("the next change is at %v, want %v", until, want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	settings := &config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MaxNonActiveRevisions: 2}
	minimum := &config.GC{MinNonActiveRevisions: 20, MaxNonActiveRevisions: 1000}
	disabled := &config.GC{RetainSinceCreateTime: -1, RetainSinceLastActiveTime: -1, MaxNonActiveRevisions: -1}
	young := []servingv1.Revision{rev("hello-00001", 3, 3), rev("hello-00002", 2, 2), rev("hello-00003", 1, 1)}
	tests := []struct {
		name     string
		revision servingv1.Revision
		peers    []servingv1.Revision
		gc       *config.GC
		want     string
	}{
		{name: "latest", revision: rev("hello-00008", 1, 1), gc: settings, want: "kept: it is the latest ready revision of its configuration"},
		{name: "wanted", revision: rev("hello-00009", 1, 1), gc: settings, want: "kept: it is the revision that its configuration asks for"},
		{
			name: "preserved", revision: rev("hello-00001", 1, 1, note(serving.RevisionPreservedAnnotationKey, "true")), gc: settings,
			want: "kept: the annotation serving.knative.dev/no-gc asks for it",
		},
		{
			name: "routed", revision: rev("hello-00001", 1, 1, state(servingv1.RoutingStateActive), note(serving.RoutesAnnotationKey, "hello,other")), gc: settings,
			want: "kept: it belongs to route hello,other",
		},
		{name: "pending", revision: rev("hello-00001", 1, 1, state(servingv1.RoutingStatePending)), gc: settings, want: "kept: no route has used it yet"},
		{name: "minimum", revision: rev("hello-00001", 100, 100), gc: minimum, want: "kept: min-non-active-revisions keeps 20 revisions without a route"},
		{
			name: "ageless", revision: rev("hello-00001", 100, 100), gc: disabled,
			want: "kept: retain-since-create-time and retain-since-last-active-time are disabled",
		},
		{name: "created", revision: rev("hello-00001", 1, 1), gc: settings, want: "kept: retain-since-create-time keeps it until 2026-01-12T11:00:00Z"},
		{name: "active", revision: rev("hello-00001", 100, 1), gc: settings, want: "kept: retain-since-last-active-time keeps it until 2026-01-11T02:00:00Z"},
		{name: "stale", revision: rev("hello-00001", 100, 20), gc: settings, want: "deleted: it was created 100h0m0s ago and has had no route for 20h0m0s"},
		{
			name: "excess", revision: young[0], peers: young, gc: settings,
			want: "deleted: max-non-active-revisions allows 2 revisions without a route, and it is one of the oldest",
		},
		{name: "not the oldest", revision: young[1], peers: young, gc: settings, want: "kept: retain-since-create-time keeps it until 2026-01-12T10:00:00Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, Explain(&tt.revision, hello(), tt.peers, tt.gc, now)); diff != "" {
				t.Errorf("explanation (-want +got):\n%s", diff)
			}
		})
	}
}
