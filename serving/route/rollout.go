package route

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// rolloutAnnotation of a route's status holds the pace of the rollouts in progress, by target. How far they are the traffic
// of the status says.
const rolloutAnnotation = "networking.internal.knative.dev/rollout"

// pace is how fast one target moves to its latest revision. The zero value is a target at rest.
type pace struct {
	// Start is when the latest revision got its first percent.
	Start time.Time `json:"start"`
	// Size is the number of percents that move in each step. It is zero until the proxies have taken up the first percent:
	// steps that are shorter than the proxies need would not be seen.
	Size int64 `json:"size,omitempty"`
	// Step is the time from one step to the next, and Next when that is.
	Step time.Duration `json:"step,omitempty"`
	Next time.Time     `json:"next,omitzero"`
}

// share is a revision's part of a target's traffic.
type share struct {
	revision string
	percent  int64
}

// moment is what a rollout is decided by beside its target.
type moment struct {
	now time.Time
	// duration of a whole rollout; zero means at once.
	duration time.Duration
	// programmed says that the proxies do what the status asked for before.
	programmed bool
}

// roll moves a target one step towards its latest revision. before are the shares so far, the oldest revision first. p is
// changed, and at rest when the rollout is over. wait is the time to the next step, or zero when something else must happen.
// The arithmetic is that of upstream, whose documentation users know: 1 % first, then equal steps.
func roll(before []share, latest string, percent int64, p *pace, m moment) (after []share, wait time.Duration) {
	before = fit(before, percent)
	whole := []share{{latest, percent}}
	if m.duration <= 0 || percent <= 1 || len(before) == 0 || len(before) == 1 && before[0].revision == latest {
		*p = pace{}
		return whole, 0
	}
	if before[len(before)-1].revision != latest {
		*p = pace{Start: m.now}
		return append(drain(before, 1), share{latest, 1}), 0
	}
	if p.Start.IsZero() {
		p.Start = m.now // what has been noted was lost
	}
	switch {
	case p.Size == 0 && !m.programmed:
		return before, 0
	case p.Size == 0:
		p.measure(percent, m)
	}
	shares := before
	for ; !m.now.Before(p.Next) && len(shares) > 1; p.Next = p.Next.Add(p.Step) {
		last := shares[len(shares)-1]
		last.percent = min(last.percent+p.Size, percent)
		shares = append(drain(shares[:len(shares)-1], p.Size), last)
	}
	if len(shares) == 1 {
		*p = pace{}
		return whole, 0
	}
	return shares, p.Next.Sub(m.now)
}

// measure fits the steps into what is left of the duration. None is shorter than the first percent took, and none is smaller
// than one percent.
func (p *pace) measure(percent int64, m moment) {
	shortest := max(1, math.Ceil(m.now.Sub(p.Start).Seconds()))
	left := max(1, m.duration.Seconds()-shortest)
	rest := float64(percent - 1)
	steps := min(max(1, left/shortest), rest)
	p.Size = int64(math.Round(rest / steps))
	p.Step = time.Duration(left / steps * float64(time.Second))
	p.Next = m.now.Add(p.Step)
}

// fit adapts shares to a new percentage of the whole target: the newest revision gets what is added, the oldest ones lose
// what is taken.
func fit(shares []share, percent int64) []share {
	out := slices.Clone(shares)
	total := int64(0)
	for _, s := range out {
		total += s.percent
	}
	if percent == 0 || len(out) == 0 {
		return nil
	}
	if total < percent {
		out[len(out)-1].percent += percent - total
		return out
	}
	for excess := total - percent; excess > 0; {
		taken := min(out[0].percent, excess)
		out[0].percent -= taken
		excess -= taken
		if out[0].percent == 0 {
			out = out[1:]
		}
	}
	return out
}

// drain takes percents from the newest revisions first, and leaves out those that have none any more.
func drain(shares []share, percents int64) []share {
	out := slices.Clone(shares)
	for i := len(out) - 1; i >= 0 && percents > 0; i-- {
		taken := min(out[i].percent, percents)
		out[i].percent -= taken
		percents -= taken
	}
	return slices.DeleteFunc(out, func(s share) bool { return s.percent == 0 })
}

// rollOut replaces each target that follows the latest revision by the shares of its rollout, and notes their pace in the
// status. A revision that is gone or broken gets no share: a rollout must not delay the way out of an outage.
func rollOut(r *servingv1.Route, targets []servingv1.TrafficTarget, in Referred, m moment) (out []servingv1.TrafficTarget, wait time.Duration) {
	noted, kept := paces(&r.Status), map[string]*pace{}
	for i := range targets {
		t := &targets[i]
		if !followsLatest(t) {
			out = append(out, *t)
			continue
		}
		configuration := in.configurationOf(t.RevisionName)
		before := in.shares(r.Status.Traffic, t.Tag, configuration)
		target := t.Tag + "/" + configuration
		p := noted[target]
		if p == nil {
			p = &pace{}
		}
		shares, next := roll(before, t.RevisionName, *t.Percent, p, m)
		kept[target] = p
		if next > 0 && (wait == 0 || next < wait) {
			wait = next
		}
		for _, s := range shares {
			out = append(out, servingv1.TrafficTarget{
				Tag: t.Tag, RevisionName: s.revision, Percent: &s.percent, LatestRevision: t.LatestRevision,
			})
		}
	}
	notePaces(&r.Status, kept)
	return out, wait
}

// followsLatest says whether a target has traffic that follows the latest revision.
func followsLatest(t *servingv1.TrafficTarget) bool {
	return t.LatestRevision != nil && *t.LatestRevision && t.Percent != nil && *t.Percent > 0
}

// shares returns how the traffic of a target is divided among the revisions of its configuration that can take it.
func (in Referred) shares(traffic []servingv1.TrafficTarget, tag, configuration string) []share {
	var out []share
	for i := range traffic {
		t := &traffic[i]
		if t.Tag == tag && followsLatest(t) && in.configurationOf(t.RevisionName) == configuration && in.Revisions[t.RevisionName].IsReady() {
			out = append(out, share{t.RevisionName, *t.Percent})
		}
	}
	return out
}

// configurationOf returns the name of the configuration of a revision, or "" when it is not there.
func (in Referred) configurationOf(revision string) string {
	if r := in.Revisions[revision]; r != nil {
		return r.Labels[serving.ConfigurationLabelKey]
	}
	return ""
}

// paces reads the annotation. What cannot be read is as if nothing were in progress.
func paces(rs *servingv1.RouteStatus) map[string]*pace {
	out := map[string]*pace{}
	if err := json.Unmarshal([]byte(rs.Annotations[rolloutAnnotation]), &out); err != nil {
		return map[string]*pace{}
	}
	return out
}

// notePaces writes the annotation, or removes it when all targets are at rest.
func notePaces(rs *servingv1.RouteStatus, all map[string]*pace) {
	for target, p := range all {
		if p == nil || p.Start.IsZero() {
			delete(all, target)
		}
	}
	delete(rs.Annotations, rolloutAnnotation)
	if len(all) == 0 {
		if len(rs.Annotations) == 0 {
			rs.Annotations = nil
		}
		return
	}
	data, err := json.Marshal(all)
	if err != nil {
		return // times of our own clock always marshal
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[rolloutAnnotation] = string(data)
}
