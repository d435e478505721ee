package route

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// start is any time without a monotonic part, as times are after they were stored.
var start = time.Unix(1000, 0)

func text(shares []share) string {
	out := ""
	for _, s := range shares {
		out += fmt.Sprintf("%s:%d ", s.Revision, s.Percent)
	}
	return out
}

func TestRoll(t *testing.T) {
	t.Parallel()
	running := pace{Start: start, Size: 33, Step: 10 * time.Second, Next: start.Add(10 * time.Second)}
	tests := []struct {
		name    string
		before  []share
		latest  string
		percent int64
		pace    pace
		moment  moment
		want    string
		wait    time.Duration
		rest    bool
	}{
		{
			name: "first revision", latest: "a", percent: 100, moment: moment{now: start, duration: time.Minute},
			want: "a:100 ", rest: true,
		},
		{
			name: "no duration", before: []share{{"a", 100}}, latest: "b", percent: 100, moment: moment{now: start},
			want: "b:100 ", rest: true,
		},
		{
			name: "at rest", before: []share{{"a", 100}}, latest: "a", percent: 100, moment: moment{now: start, duration: time.Minute},
			want: "a:100 ", rest: true,
		},
		{
			name: "one percent cannot be divided", before: []share{{"a", 1}}, latest: "b", percent: 1,
			moment: moment{now: start, duration: time.Minute}, want: "b:1 ", rest: true,
		},
		{
			name: "begin", before: []share{{"a", 100}}, latest: "b", percent: 100, moment: moment{now: start, duration: time.Minute},
			want: "a:99 b:1 ",
		},
		{
			name: "wait for the proxies", before: []share{{"a", 99}, {"b", 1}}, latest: "b", percent: 100, pace: pace{Start: start},
			moment: moment{now: start.Add(time.Hour), duration: time.Minute}, want: "a:99 b:1 ",
		},
		{
			// 1 s for the first percent, 59 s left, 59 steps of 1 s, round(99/59) = 2 percents each.
			name: "measure", before: []share{{"a", 99}, {"b", 1}}, latest: "b", percent: 100, pace: pace{Start: start},
			moment: moment{now: start.Add(100 * time.Millisecond), duration: time.Minute, programmed: true}, want: "a:99 b:1 ", wait: time.Second,
		},
		{
			name: "not yet", before: []share{{"a", 99}, {"b", 1}}, latest: "b", percent: 100, pace: running,
			moment: moment{now: start.Add(4 * time.Second), duration: time.Minute}, want: "a:99 b:1 ", wait: 6 * time.Second,
		},
		{
			name: "step", before: []share{{"a", 99}, {"b", 1}}, latest: "b", percent: 100, pace: running,
			moment: moment{now: start.Add(10 * time.Second), duration: time.Minute}, want: "a:66 b:34 ", wait: 10 * time.Second,
		},
		{
			name: "late: one step, and the next after a whole pause", before: []share{{"a", 99}, {"b", 1}}, latest: "b", percent: 100, pace: running,
			moment: moment{now: start.Add(25 * time.Second), duration: time.Minute}, want: "a:66 b:34 ", wait: 10 * time.Second,
		},
		{
			name: "end", before: []share{{"a", 33}, {"b", 67}}, latest: "b", percent: 100, pace: running,
			moment: moment{now: start.Add(10 * time.Second), duration: time.Minute}, want: "b:100 ", rest: true,
		},
		{
			name: "another revision meanwhile", before: []share{{"a", 66}, {"b", 34}}, latest: "c", percent: 100, pace: running,
			moment: moment{now: start.Add(time.Second), duration: time.Minute}, want: "a:66 b:33 c:1 ",
		},
		{
			name: "the newest of the old goes first", before: []share{{"a", 66}, {"b", 20}, {"c", 14}}, latest: "c", percent: 100, pace: running,
			moment: moment{now: start.Add(10 * time.Second), duration: time.Minute}, want: "a:53 c:47 ", wait: 10 * time.Second,
		},
		{
			name: "the target grows", before: []share{{"a", 30}, {"b", 20}}, latest: "b", percent: 80, pace: running,
			moment: moment{now: start, duration: time.Minute}, want: "a:30 b:50 ", wait: 10 * time.Second,
		},
		{
			name: "the target shrinks", before: []share{{"a", 30}, {"b", 20}}, latest: "b", percent: 25, pace: running,
			moment: moment{now: start, duration: time.Minute}, want: "a:5 b:20 ", wait: 10 * time.Second,
		},
		{
			name: "the duration is taken away", before: []share{{"a", 66}, {"b", 34}}, latest: "b", percent: 100, pace: running,
			moment: moment{now: start}, want: "b:100 ", rest: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tt.pace
			got, wait := roll(tt.before, tt.latest, tt.percent, &p, tt.moment)
			if text(got) != tt.want {
				t.Errorf("shares are %q, want %q", text(got), tt.want)
			}
			if wait != tt.wait {
				t.Errorf("wait is %v, want %v", wait, tt.wait)
			}
			if p.Start.IsZero() != tt.rest {
				t.Errorf("pace is %+v, want at rest: %v", p, tt.rest)
			}
		})
	}
}

// TestRollEnds runs whole rollouts: they must end in about their duration, never lose a percent and never go back.
func TestRollEnds(t *testing.T) {
	t.Parallel()
	for _, percent := range []int64{2, 3, 10, 50, 99, 100} {
		for _, seconds := range []int{1, 7, 60, 3600} {
			t.Run(fmt.Sprintf("%d percent in %d s", percent, seconds), func(t *testing.T) {
				t.Parallel()
				m := moment{now: start, duration: time.Duration(seconds) * time.Second}
				p := pace{}
				shares, _ := roll([]share{{"a", percent}}, "b", percent, &p, m)
				m.now, m.programmed = start.Add(200*time.Millisecond), true
				last := int64(1)
				for len(shares) > 1 {
					var wait time.Duration
					shares, wait = roll(shares, "b", percent, &p, m)
					sum := int64(0)
					for _, s := range shares {
						sum += s.Percent
					}
					newest := shares[len(shares)-1].Percent
					if sum != percent || newest < last {
						t.Fatalf("shares are %q after %d for the new revision", text(shares), last)
					}
					last = newest
					m.now = m.now.Add(wait)
				}
				if took, most := m.now.Sub(start), m.duration+2*time.Second; took > most {
					t.Errorf("took %v, want at most %v", took, most)
				}
			})
		}
	}
}

func TestRolloutsSurviveStorage(t *testing.T) {
	t.Parallel()
	rs := &servingv1.RouteStatus{}
	moving := pace{Start: start.UTC(), Size: 2, Step: time.Second, Next: start.Add(time.Second).UTC()}
	want := rollouts{
		Configurations: map[string]*pace{"hello": &moving},
		Tags:           map[string]*tagRollout{"next": {pace: moving, Revisions: []share{{"a", 99}, {"b", 1}}}},
	}
	rollouts{
		Configurations: map[string]*pace{"hello": &moving, "other": {}},
		Tags:           map[string]*tagRollout{"next": want.Tags["next"], "rest": {Revisions: []share{{"a", 100}}}},
	}.note(rs)
	if diff := cmp.Diff(want, readRollouts(rs), cmp.AllowUnexported(tagRollout{})); diff != "" {
		t.Errorf("rollouts (-want +got):\n%s", diff)
	}
	rollouts{}.note(rs)
	if rs.Annotations != nil {
		t.Errorf("annotations are %v at rest, want none", rs.Annotations)
	}
	rs.Annotations = map[string]string{rolloutAnnotation: "broken"}
	if diff := cmp.Diff(rollouts{}, readRollouts(rs)); diff != "" {
		t.Errorf("rollouts of a broken annotation (-want +got):\n%s", diff)
	}
}

// rolling is a route whose rollouts a test drives, with the revisions that its configurations have.
type rolling struct {
	route  servingv1.Route
	in     Referred
	moment moment
}

func newRolling(revisions ...string) *rolling {
	r := &rolling{in: Referred{Revisions: map[string]*servingv1.Revision{}}, moment: moment{now: start, duration: 10 * time.Second}}
	for _, name := range revisions {
		r.in.Revisions[name] = rev(name, name[:1], "ready")
	}
	return r
}

// at is a target that Resolve has found to be at a revision, the latest one of its configuration.
func at(revision string, percent int64, tag string) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{RevisionName: revision, Tag: tag, Percent: &percent, LatestRevision: new(true)}
}

// look takes the rollouts to targets at the present moment, and says what status and annotation hold then.
func (r *rolling) look(targets ...servingv1.TrafficTarget) string {
	var out string
	r.route.Status.Traffic, _ = rollOut(&r.route, targets, r.in, r.moment)
	for _, t := range r.route.Status.Traffic {
		out += fmt.Sprintf("%s%s:%d ", t.Tag, t.RevisionName, *t.Percent)
	}
	tags := readRollouts(&r.route.Status).Tags
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		out += "| " + tag + " " + text(tags[tag].Revisions)
	}
	return out
}

func (r *rolling) check(t *testing.T, want string, targets ...servingv1.TrafficTarget) {
	t.Helper()
	if got := r.look(targets...); got != want {
		t.Errorf("after %v: %q, want %q", r.moment.now.Sub(start), got, want)
	}
}

// programmed lets the proxies take up what was decided, so that the next look measures the steps.
func (r *rolling) programmed() {
	r.moment.now, r.moment.programmed = r.moment.now.Add(time.Second), true
}

func TestRollOutTagsOnTheirOwnHosts(t *testing.T) {
	t.Parallel()
	r := newRolling("a1", "a2", "a3")
	r.check(t, "a1:100 -a1:0 ", at("a1", 100, ""), at("a1", 0, "-"))
	r.check(t, "a1:99 a2:1 -a1:0 -a2:0 | - a1:99 a2:1 ", at("a2", 100, ""), at("a2", 0, "-"))
	r.programmed()
	r.check(t, "a1:99 a2:1 -a1:0 -a2:0 | - a1:99 a2:1 ", at("a2", 100, ""), at("a2", 0, "-"))
	// 9 s are left, in 9 steps of 11 percents.
	r.moment.now = r.moment.now.Add(time.Second)
	r.check(t, "a1:88 a2:12 -a1:0 -a2:0 | - a1:88 a2:12 ", at("a2", 100, ""), at("a2", 0, "-"))
	// A newer revision takes its first percent from the newest one before it.
	r.check(t, "a1:88 a2:11 a3:1 -a1:0 -a2:0 -a3:0 | - a1:88 a2:11 a3:1 ", at("a3", 100, ""), at("a3", 0, "-"))
	// Without a duration all are there at once.
	r.moment.duration = 0
	r.check(t, "a3:100 -a3:0 ", at("a3", 100, ""), at("a3", 0, "-"))
	if inProgress(&r.route.Status) {
		t.Errorf("a rollout is noted at the end: %v", r.route.Status.Annotations)
	}
}

func TestRollOutSeveralTargets(t *testing.T) {
	t.Parallel()
	r := newRolling("a1", "a2", "b1", "b2")
	rest := pinned("a1", 30, "")
	r.check(t, "a1:50 b1:20 a1:30 ", at("a1", 50, ""), at("b1", 20, ""), rest)
	r.check(t, "a1:49 a2:1 b1:20 a1:30 ", at("a2", 50, ""), at("b1", 20, ""), rest)
	r.programmed()
	// The other configuration begins its own rollout in the middle of the first one.
	r.check(t, "a1:49 a2:1 b1:19 b2:1 a1:30 ", at("a2", 50, ""), at("b2", 20, ""), rest)
	r.moment.now = r.moment.now.Add(time.Second)
	r.check(t, "a1:44 a2:6 b1:19 b2:1 a1:30 ", at("a2", 50, ""), at("b2", 20, ""), rest)
	// A rollback in the middle: what is pinned moves at once, and takes the rollout with it.
	r.check(t, "a1:100 ", pinned("a1", 100, ""))
	if inProgress(&r.route.Status) {
		t.Errorf("a rollout is noted after the rollback: %v", r.route.Status.Annotations)
	}
}

func TestRollOutLeavesAnOutageAtOnce(t *testing.T) {
	t.Parallel()
	r := newRolling("a1", "a2", "a3")
	r.check(t, "-a1:100 ", at("a1", 100, "-"))
	r.check(t, "-a1:99 -a2:1 | - a1:99 a2:1 ", at("a2", 100, "-"))
	// The old revision is deleted: the new one takes all of its share.
	delete(r.in.Revisions, "a1")
	r.check(t, "-a2:100 ", at("a2", 100, "-"))
}

// TestRollOutGoesOnWhenTagsChange gives tags to targets together with a new revision and in the middle of its rollout: the route's own
// host must not jump, and a tag that is new is where it belongs at once.
func TestRollOutGoesOnWhenTagsChange(t *testing.T) {
	t.Parallel()
	r := newRolling("a1", "a2")
	r.check(t, "a1:100 ", at("a1", 100, ""))
	r.check(t, "-a1:99 -a2:1 ", at("a2", 100, "-"))
	r.programmed()
	r.check(t, "-a1:30 -a2:0 +a1:69 +a2:1 ", at("a2", 30, "-"), at("a2", 70, "+"))
	r.moment.now = r.moment.now.Add(time.Second)
	// The targets share the revisions in the order of their age; the tag's own host stays at the new one.
	r.check(t, "-a1:30 -a2:0 +a1:58 +a2:12 ", at("a2", 30, "-"), at("a2", 70, "+"))
	r.moment.now = r.moment.now.Add(time.Second)
	r.check(t, "a1:77 a2:23 ", at("a2", 100, ""))
}
