package explain

import (
	"fmt"
	"strings"
	"time"

	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/autoscaler/scale"
	"github.com/weft-dev/weft/autoscaler/settings"
)

// scaling is why a revision has as many instances as it has.
type scaling struct {
	revision string
	count    string
	// because is why, or last the latest change where the present reason is not known; next is what would change it.
	because, last, next string
}

func (s scaling) text() string {
	text := fmt.Sprintf("%s: %s", s.revision, s.count)
	if s.because != "" {
		text += ", because " + s.because
	}
	if s.last != "" {
		text += " (last " + s.last + ")"
	}
	if s.next != "" {
		text += "; " + s.next
	}
	return text
}

// instances explains the number of instances of a revision.
func (e *explainer) instances(r *RevisionObjects) scaling {
	pa := r.Autoscaler
	desired, actual := int32(0), int32(0)
	if pa.Status.DesiredScale != nil {
		desired = max(*pa.Status.DesiredScale, 0)
	}
	if pa.Status.ActualScale != nil {
		actual = *pa.Status.ActualScale
	}
	s := scaling{revision: r.Revision.Name, count: plural(int(actual), "instance", "instances")}
	if actual != desired {
		s.count = fmt.Sprintf("%d of %s", actual, plural(int(desired), "wanted instance", "wanted instances"))
	}
	if !settings.Mine(pa) {
		s.because = fmt.Sprintf("the autoscaler of class %s says so", pa.Class())
		return s
	}
	c := settings.Of(pa, e.config.Autoscaler, e.config.Deployment.ProgressDeadline)
	active := pa.Status.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive)
	switch {
	case desired == 0 && actual == 0:
		s.because, s.next = atZero(r, c, active.GetReason())
	case desired == 0:
		// The phase became inactive with the retention.
		since := e.now
		if active != nil {
			since = active.LastTransitionTime.Inner.Time
		}
		s.count, s.because = plural(int(actual), "instance", "instances"), "scale-to-zero-pod-retention-period is "+span(c.Retention)
		s.next = fmt.Sprintf("it goes in %s unless a request comes", short(since.Add(c.Retention).Sub(e.now)))
		if c.Retention == 0 {
			s.because, s.next = "no request came for "+span(c.StableWindow), "it ends when its requests have"
		}
	default:
		e.above(&s, r, c, desired)
	}
	return s
}

// atZero explains why there is no instance and what would make one.
func atZero(r *RevisionObjects, c settings.Settings, reason string) (because, next string) {
	because, next = "no request came for "+span(c.StableWindow), "the next request starts one"
	if c.Retention > 0 {
		because += " and then " + span(c.Retention)
	}
	if reason == "TimedOut" {
		because, next = "none became ready in time", "the next request tries again"
	}
	if c.Unreachable {
		because, next = "no route leads to the revision", "nothing starts one until a route does"
		if failed(r.Revision) {
			because, next = "it has failed", "a new revision or the next request starts one"
		}
	}
	return because, next
}

// failed says whether a revision could not start.
func failed(r *servingv1.Revision) bool {
	return r.Status.GetCondition(servingv1.RevisionConditionReady).IsFalse()
}

// above explains why there are instances and when there would be fewer.
func (e *explainer) above(s *scaling, r *RevisionObjects, c settings.Settings, desired int32) {
	s.next = fmt.Sprintf("the last one goes %s after the last request", span(c.StableWindow+c.Retention))
	switch {
	case c.MinScale >= desired:
		s.because, s.next = fmt.Sprintf("min-scale is %d", c.MinScale), "there will never be fewer"+most(c)
		return
	case c.MinScale > 0:
		s.next = fmt.Sprintf("min-scale keeps %d", c.MinScale)
	case !c.ScaleToZero:
		s.next = "enable-scale-to-zero is false, so that one stays"
	}
	s.next += most(c)
	starting := r.Autoscaler.Status.ActualScale == nil || *r.Autoscaler.Status.ActualScale == 0
	switch last := r.Autoscaler.Status.Annotations[scale.ReasonAnnotation]; {
	case starting && last == "":
		s.because = fmt.Sprintf("a new revision starts with %d", max(c.InitialScale, 1))
		s.next = fmt.Sprintf("it has %s to become ready", span(c.ProgressDeadline))
	case r.Load != nil:
		s.because = measured(r.Load, c)
	case last != "":
		s.last = strings.ToLower(last[:1]) + last[1:]
	default:
		s.because = fmt.Sprintf("a new revision starts with %d", max(c.InitialScale, 1))
	}
}

// most mentions the upper bound.
func most(c settings.Settings) string {
	if c.MaxScale == 0 {
		return ""
	}
	return fmt.Sprintf(", max-scale allows %d", c.MaxScale)
}

// measured puts what the autoscaler measures now into words.
func measured(load *scale.Insight, c settings.Settings) string {
	unit := "requests at a time"
	if c.Metric == autoscaling.RPS {
		unit = "requests per second"
	}
	text := load.Because
	if !strings.Contains(text, "average") && load.Stable+load.Panic > 0 {
		text += fmt.Sprintf("; %s %s on average over the last %s", number(load.Stable), unit, span(c.StableWindow))
	}
	if load.Stable+load.Panic > 0 {
		text += fmt.Sprintf(", %s over the last %s", number(load.Panic), c.PanicWindow.Round(time.Second/10))
	}
	if load.Waiting > 0 {
		text += fmt.Sprintf(", %s now", number(load.Waiting))
	}
	if load.InPanic {
		text += "; in panic: nothing goes down until load has been below the threshold for " + span(c.StableWindow)
	}
	return text
}

// bounds are the settings that the number of instances follows.
func bounds(c settings.Settings) string {
	limit := "no max-scale"
	if c.MaxScale > 0 {
		limit = fmt.Sprintf("max-scale %d", c.MaxScale)
	}
	unit := "requests at a time"
	if c.Metric == autoscaling.RPS {
		unit = "requests per second"
	}
	return fmt.Sprintf("min-scale %d, %s, target %s %s per instance, window %s, panic window %s from %s %%",
		c.MinScale, limit, number(c.Target), unit, span(c.StableWindow), c.PanicWindow.Round(time.Second/10), number(100*c.PanicThreshold))
}

func (e *explainer) autoscaler(r *RevisionObjects) Link {
	pa := r.Autoscaler
	l := Link{Kind: "PodAutoscaler", Name: pa.Name, State: OK, Since: pa.CreationTimestamp.Time}
	active := pa.Status.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive)
	if active != nil {
		l.Since = active.LastTransitionTime.Inner.Time
	}
	how := e.instances(r)
	l.Says = strings.TrimPrefix(how.text(), how.revision+": ")
	if settings.Mine(pa) {
		l.Details = []string{bounds(settings.Of(pa, e.config.Autoscaler, e.config.Deployment.ProgressDeadline))}
	}
	switch active.GetReason() {
	case "TimedOut":
		if failed(r.Revision) || len(r.Pods) > 0 {
			break
		}
		l.State = Broken
		l.Cause = "no instance became ready in time, so the revision was scaled to zero"
		l.Next = []string{e.describe("revision", r.Revision.Name)}
	case "UnsupportedScaleTarget":
		l.State, l.Cause = Broken, trimPeriod(active.GetMessage())
	case "Queued":
		l.State = Waiting
	}
	return l
}
