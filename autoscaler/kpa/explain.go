package kpa

import (
	"fmt"
	"strconv"
	"time"

	"knative.dev/serving/pkg/apis/autoscaling"

	"github.com/weft-dev/weft/autoscaler/settings"
)

// Explain says in a user's words why the number of instances goes from one to another.
func Explain(from, to int32, d Decision, p Plan, c settings.Settings) string {
	return fmt.Sprintf("Scaled from %d to %d: %s", from, to, Because(from, to, d, p, c))
}

// Because is the reason alone, which also explains why a number stays as it is.
func Because(from, to int32, d Decision, p Plan, c settings.Settings) string {
	switch p.Cause {
	case ByMinScale:
		return fmt.Sprintf("min-scale is %d", c.MinScale)
	case ByMaxScale:
		return fmt.Sprintf("max-scale is %d, and %s", c.MaxScale, load(d, c))
	case ByInitialScale:
		return fmt.Sprintf("initial-scale is %d", c.InitialScale)
	case ByNoZero:
		return "no request, and enable-scale-to-zero is false"
	case Idle:
		return idle(c)
	case TimedOut:
		return fmt.Sprintf("no instance became ready within %s", short(c.ProgressDeadline+activationBuffer))
	case Holding:
		return held(from, to, c)
	case ByLoad:
	}
	if from == 0 && d.Sample.Waiting > 0 {
		return waiting(d, c)
	}
	return load(d, c)
}

// held explains the cases in which nothing is known yet that would ask for another number.
func held(from, to int32, c settings.Settings) string {
	if to > from {
		return fmt.Sprintf("initial-scale is %d", c.InitialScale)
	}
	return fmt.Sprintf("no request now, and the last instance stays until there was none for %s", short(c.StableWindow))
}

func idle(c settings.Settings) string {
	text := "no request for " + short(c.StableWindow)
	if c.Retention > 0 {
		text += " and the last instance was kept for another " + short(c.Retention)
	}
	if c.Unreachable {
		text += ", and no route leads to the revision"
	}
	return text
}

func waiting(d Decision, c settings.Settings) string {
	text := plural(int(d.Sample.Waiting), "request is", "requests are") + " waiting and no instance runs"
	if d.Activated {
		text += fmt.Sprintf(", and activation-scale is %d", c.ActivationScale)
	}
	return text
}

// load names the average that decided and what an instance is meant to have.
func load(d Decision, c settings.Settings) string {
	value, over := d.Sample.Stable, c.StableWindow
	if d.Panic && d.Sample.Panic >= value {
		value, over = d.Sample.Panic, c.PanicWindow
	}
	unit := "requests at a time"
	if c.Metric == autoscaling.RPS {
		unit = "requests per second"
	}
	text := fmt.Sprintf("%s %s on average over the last %s, %s per instance is the target",
		number(value), unit, short(over), number(c.Target))
	switch {
	case d.Limited:
		text += fmt.Sprintf("; one step goes at most to %s times the ready instances", number(c.MaxScaleUpRate))
	case d.Activated:
		text += fmt.Sprintf("; activation-scale is %d", c.ActivationScale)
	case d.Held:
		text += "; a higher number from before is still held"
	}
	return text
}

// number writes a load with at most two decimals.
func number(f float64) string {
	return strconv.FormatFloat(float64(int64(f*100+0.5))/100, 'f', -1, 64)
}

// short writes a duration without its zero parts, "1m30s" and "60s" as users write it in annotations.
func short(d time.Duration) string {
	if d < 2*time.Minute && d%time.Second == 0 {
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	return d.String()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
