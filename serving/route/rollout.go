package route

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// rolloutAnnotation of a route's status holds the rollouts in progress. It is kept in the status, where upstream keeps it on its
// Ingress, because it and status.traffic say one thing and must be stored in one write; the mesh reads the shares of tags in it.
const rolloutAnnotation = "networking.internal.knative.dev/rollout"

// rollouts are those in progress, each for one host. A host at rest has none.
type rollouts struct {
	// Configurations are the paces of the route's own host, by configuration. How far they are status.traffic says.
	Configurations map[string]*pace `json:"configurations,omitempty"`
	// Tags are the rollouts of the tags' hosts, by tag.
	Tags map[string]*tagRollout `json:"tags,omitempty"`
}

// tagRollout is the rollout of a tag's host, all of whose requests follow the latest revision whatever the tag's part of the
// route's traffic is.
type tagRollout struct {
	pace
	// Revisions divide 100 %, the oldest first.
	Revisions []share `json:"revisions"`
}

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
	Revision string `json:"revisionName"`
	Percent  int64  `json:"percent"`
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
	if m.duration <= 0 || percent <= 1 || len(before) == 0 || len(before) == 1 && before[0].Revision == latest {
		*p = pace{}
		return whole, 0
	}
	if before[len(before)-1].Revision != latest {
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
	if !m.now.Before(p.Next) {
		// One step for one look, however late it is: what was missed while nobody looked must not come at once.
		last := shares[len(shares)-1]
		last.Percent = min(last.Percent+p.Size, percent)
		shares = append(drain(shares[:len(shares)-1], p.Size), last)
		p.Next = m.now.Add(p.Step)
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
		total += s.Percent
	}
	if percent == 0 || len(out) == 0 {
		return nil
	}
	if total < percent {
		out[len(out)-1].Percent += percent - total
		return out
	}
	for excess := total - percent; excess > 0; {
		taken := min(out[0].Percent, excess)
		out[0].Percent -= taken
		excess -= taken
		if out[0].Percent == 0 {
			out = out[1:]
		}
	}
	return out
}

// drain takes percents from the newest revisions first, and leaves out those that have none any more.
func drain(shares []share, percents int64) []share {
	out := slices.Clone(shares)
	for i := len(out) - 1; i >= 0 && percents > 0; i-- {
		taken := min(out[i].Percent, percents)
		out[i].Percent -= taken
		percents -= taken
	}
	return slices.DeleteFunc(out, func(s share) bool { return s.Percent == 0 })
}

// rollOut replaces each target that follows the latest revision by one for each revision of its rollouts, and notes these in the
// status. wait is the time to the next step. A revision that is gone or broken gets no share: a rollout must not delay the way
// out of an outage.
func rollOut(r *servingv1.Route, targets []servingv1.TrafficTarget, in Referred, m moment) (out []servingv1.TrafficTarget, wait time.Duration) {
	noted := readRollouts(&r.Status)
	kept := rollouts{Configurations: map[string]*pace{}, Tags: map[string]*tagRollout{}}
	soonest := func(next time.Duration) {
		if next > 0 && (wait == 0 || next < wait) {
			wait = next
		}
	}
	main := map[string][]share{}
	for configuration, whole := range in.wholes(targets) {
		p := valueOf(noted.Configurations[configuration])
		var next time.Duration
		main[configuration], next = roll(in.shares(r.Status.Traffic, configuration), whole.Revision, whole.Percent, &p, m)
		kept.Configurations[configuration] = &p
		soonest(next)
	}
	for i := range targets {
		t := &targets[i]
		if !followsLatest(t) {
			out = append(out, *t)
			continue
		}
		configuration := in.configurationOf(t.RevisionName)
		var mine, own []share
		mine, main[configuration] = take(main[configuration], *t.Percent)
		if t.Tag != "" {
			p := valueOf(noted.Tags[t.Tag])
			var next time.Duration
			own, next = roll(in.ownShares(&r.Status, p.Revisions, t.Tag, configuration), t.RevisionName, 100, &p.pace, m)
			kept.Tags[t.Tag] = &tagRollout{pace: p.pace, Revisions: own}
			soonest(next)
		}
		out = append(out, perRevision(t, mine, own)...)
	}
	kept.note(&r.Status)
	return out, wait
}

// wholes sums what the targets that follow the latest revision of a configuration have of the route's traffic. They are one rollout,
// so that it goes on when a tag is given to one of them or taken away.
func (in Referred) wholes(targets []servingv1.TrafficTarget) map[string]share {
	out := map[string]share{}
	for i := range targets {
		if t := &targets[i]; followsLatest(t) && *t.Percent > 0 {
			configuration := in.configurationOf(t.RevisionName)
			out[configuration] = share{t.RevisionName, out[configuration].Percent + *t.Percent}
		}
	}
	return out
}

// take divides shares into the oldest ones, of so many percents together, and the rest.
func take(shares []share, percents int64) (taken, rest []share) {
	rest = slices.Clone(shares)
	for percents > 0 && len(rest) > 0 {
		n := min(percents, rest[0].Percent)
		taken = append(taken, share{rest[0].Revision, n})
		percents -= n
		if rest[0].Percent -= n; rest[0].Percent == 0 {
			rest = rest[1:]
		}
	}
	return taken, rest
}

func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// perRevision makes a target of each revision that gets requests of the route's own host or of the tag's, the latest one last.
func perRevision(t *servingv1.TrafficTarget, main, own []share) (out []servingv1.TrafficTarget) {
	percents := map[string]int64{}
	var names []string
	for _, s := range slices.Concat(own, main) {
		if s.Revision != t.RevisionName && !slices.Contains(names, s.Revision) {
			names = append(names, s.Revision)
		}
	}
	for _, s := range main {
		percents[s.Revision] = s.Percent
	}
	for _, name := range append(names, t.RevisionName) {
		out = append(out, servingv1.TrafficTarget{
			Tag: t.Tag, RevisionName: name, Percent: new(percents[name]), LatestRevision: t.LatestRevision,
		})
	}
	return out
}

// followsLatest says whether a target follows the latest revision.
func followsLatest(t *servingv1.TrafficTarget) bool {
	return t.LatestRevision != nil && *t.LatestRevision && t.Percent != nil
}

// shares returns how the traffic that follows the latest revision of a configuration is divided among those that can take it, the
// oldest first, as take has handed them out.
func (in Referred) shares(traffic []servingv1.TrafficTarget, configuration string) []share {
	var out []share
	for i := range traffic {
		t := &traffic[i]
		if !followsLatest(t) || *t.Percent == 0 || !in.usable(t.RevisionName, configuration) {
			continue
		}
		if last := len(out) - 1; last >= 0 && out[last].Revision == t.RevisionName {
			out[last].Percent += *t.Percent
			continue
		}
		out = append(out, share{t.RevisionName, *t.Percent})
	}
	return out
}

// ownShares returns how the requests to a tag's host are divided: as its rollout says, or all to the latest revision so far.
func (in Referred) ownShares(rs *servingv1.RouteStatus, rolling []share, tag, configuration string) []share {
	for i := len(rs.Traffic) - 1; i >= 0 && len(rolling) == 0; i-- {
		if t := &rs.Traffic[i]; t.Tag == tag && followsLatest(t) {
			rolling = []share{{t.RevisionName, 100}}
		}
	}
	return slices.DeleteFunc(slices.Clone(rolling), func(s share) bool { return !in.usable(s.Revision, configuration) })
}

// usable says whether a revision is one of the configuration's and can take traffic.
func (in Referred) usable(revision, configuration string) bool {
	return in.configurationOf(revision) == configuration && in.Revisions[revision].IsReady()
}

// configurationOf returns the name of the configuration of a revision, or "" when it is not there.
func (in Referred) configurationOf(revision string) string {
	if r := in.Revisions[revision]; r != nil {
		return r.Labels[serving.ConfigurationLabelKey]
	}
	return ""
}

// readRollouts reads the annotation. What cannot be read is as if nothing were in progress.
func readRollouts(rs *servingv1.RouteStatus) rollouts {
	var out rollouts
	if err := json.Unmarshal([]byte(rs.Annotations[rolloutAnnotation]), &out); err != nil {
		return rollouts{}
	}
	return out
}

// inProgress says whether the status holds a rollout that has not ended.
func inProgress(rs *servingv1.RouteStatus) bool { return rs.Annotations[rolloutAnnotation] != "" }

// note writes the annotation, or removes it when all hosts are at rest.
func (ro rollouts) note(rs *servingv1.RouteStatus) {
	maps.DeleteFunc(ro.Configurations, func(_ string, p *pace) bool { return p.Start.IsZero() })
	maps.DeleteFunc(ro.Tags, func(_ string, t *tagRollout) bool { return t.Start.IsZero() })
	delete(rs.Annotations, rolloutAnnotation)
	if len(ro.Configurations) == 0 && len(ro.Tags) == 0 {
		if len(rs.Annotations) == 0 {
			rs.Annotations = nil
		}
		return
	}
	data, err := json.Marshal(ro)
	if err != nil {
		return // times of our own clock always marshal
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[rolloutAnnotation] = string(data)
}
