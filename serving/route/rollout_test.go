package route

import (
	"fmt"
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
		out += fmt.Sprintf("%s:%d ", s.revision, s.percent)
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
			name: "catch up", before: []share{{"a", 99}, {"b", 1}}, latest: "b", percent: 100, pace: running,
			moment: moment{now: start.Add(25 * time.Second), duration: time.Minute}, want: "a:33 b:67 ", wait: 5 * time.Second,
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
						sum += s.percent
					}
					newest := shares[len(shares)-1].percent
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

func TestPacesSurviveStorage(t *testing.T) {
	t.Parallel()
	rs := &servingv1.RouteStatus{}
	want := map[string]*pace{"/hello": {Start: start.UTC(), Size: 2, Step: time.Second, Next: start.Add(time.Second).UTC()}, "next/hello": {}}
	notePaces(rs, want)
	if diff := cmp.Diff(map[string]*pace{"/hello": want["/hello"]}, paces(rs)); diff != "" {
		t.Errorf("paces (-want +got):\n%s", diff)
	}
	notePaces(rs, map[string]*pace{})
	if rs.Annotations != nil {
		t.Errorf("annotations are %v at rest, want none", rs.Annotations)
	}
	rs.Annotations = map[string]string{rolloutAnnotation: "broken"}
	if got := paces(rs); len(got) != 0 {
		t.Errorf("paces of a broken annotation are %v, want none", got)
	}
}
