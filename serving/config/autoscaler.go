package config

import (
	"context"
	"strconv"
	"time"

	"knative.dev/serving/pkg/apis/autoscaling"
	apiconfig "knative.dev/serving/pkg/apis/config"
)

// AutoscalerName is the name of the config map of the autoscaler.
const AutoscalerName = "config-autoscaler"

// Autoscaler holds the defaults and limits of scaling. The annotations of a revision override most of them.
type Autoscaler struct {
	// EnableScaleToZero permits revisions to have no instance at all.
	EnableScaleToZero bool
	// TargetUtilization is the share of a concurrency target, in (0, 1], that instances are filled to.
	TargetUtilization float64
	// ConcurrencyTarget is the number of requests in flight per instance of a revision without containerConcurrency.
	ConcurrencyTarget float64
	// RPSTarget is the number of requests per second and instance of a revision that scales by rps.
	RPSTarget float64
	// TargetBurstCapacity and ActivatorCapacity size upstream's activator. They are validated, and mean nothing where every
	// request can be parked where it arrives.
	TargetBurstCapacity float64
	ActivatorCapacity   float64
	// InitialScale is the number of instances of a new revision; 0 only with AllowZeroInitialScale.
	InitialScale          int32
	AllowZeroInitialScale bool
	// MinScale and MaxScale bound every revision that does not say otherwise; a MaxScale of 0 is no bound.
	MinScale int32
	MaxScale int32
	// MaxScaleLimit is the greatest MaxScale that a revision may ask for; 0 is no limit.
	MaxScaleLimit int32
	// MaxScaleUpRate and MaxScaleDownRate bound one decision, as factors of the ready instances. Both are above 1.
	MaxScaleUpRate   float64
	MaxScaleDownRate float64
	// StableWindow is what averages are taken over; the panic window is PanicWindowPercentage of it.
	StableWindow          time.Duration
	PanicWindowPercentage float64
	// PanicThresholdPercentage of the ready instances, wanted by the panic window, starts a panic.
	PanicThresholdPercentage float64
	// ScaleToZeroGracePeriod bounds from above how long the last instance may outlive its window.
	ScaleToZeroGracePeriod time.Duration
	// ScaleToZeroPodRetentionPeriod bounds it from below.
	ScaleToZeroPodRetentionPeriod time.Duration
	// ScaleDownDelay is how long a lower load must last before instances are removed.
	ScaleDownDelay time.Duration
	// Class is the autoscaler of revisions that name none.
	Class string
}

// InitialScaleOf is the number of instances that a revision with these annotations starts with. A 0 that was accepted counts as
// absent once AllowZeroInitialScale is off, and so does what admission would refuse.
func (a *Autoscaler) InitialScaleOf(annotations map[string]string) int32 {
	_, value, ok := autoscaling.InitialScaleAnnotation.Get(annotations)
	if !ok {
		return a.InitialScale
	}
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || n < 0 || (n == 0 && !a.AllowZeroInitialScale) {
		return a.InitialScale
	}
	return int32(n)
}

const defaultUtilization = 0.7

func defaultAutoscaler() *Autoscaler {
	return &Autoscaler{
		EnableScaleToZero: true, TargetUtilization: defaultUtilization, ConcurrencyTarget: 100, RPSTarget: 200,
		TargetBurstCapacity: 211, ActivatorCapacity: 100, InitialScale: 1, MaxScaleUpRate: 1000, MaxScaleDownRate: 2,
		StableWindow: time.Minute, PanicWindowPercentage: 10, PanicThresholdPercentage: 200,
		ScaleToZeroGracePeriod: 30 * time.Second, Class: autoscaling.KPA,
	}
}

func parseAutoscaler(data map[string]string) (*Autoscaler, error) {
	a, v := defaultAutoscaler(), &values{data: data}
	v.text(&a.Class, "pod-autoscaler-class")
	v.bool(&a.EnableScaleToZero, "enable-scale-to-zero")
	v.bool(&a.AllowZeroInitialScale, "allow-zero-initial-scale")
	v.float(&a.MaxScaleUpRate, "max-scale-up-rate")
	v.float(&a.MaxScaleDownRate, "max-scale-down-rate")
	v.float(&a.TargetUtilization, "container-concurrency-target-percentage")
	v.float(&a.ConcurrencyTarget, "container-concurrency-target-default")
	v.float(&a.RPSTarget, "requests-per-second-target-default")
	v.float(&a.TargetBurstCapacity, "target-burst-capacity")
	v.float(&a.PanicWindowPercentage, "panic-window-percentage")
	v.float(&a.ActivatorCapacity, "activator-capacity")
	v.float(&a.PanicThresholdPercentage, "panic-threshold-percentage")
	v.int32(&a.InitialScale, "initial-scale")
	v.int32(&a.MinScale, "min-scale")
	v.int32(&a.MaxScale, "max-scale")
	v.int32(&a.MaxScaleLimit, "max-scale-limit")
	v.duration(&a.StableWindow, "stable-window")
	v.duration(&a.ScaleDownDelay, "scale-down-delay")
	v.duration(&a.ScaleToZeroGracePeriod, "scale-to-zero-grace-period")
	v.duration(&a.ScaleToZeroPodRetentionPeriod, "scale-to-zero-pod-retention-period")
	if err := v.err(); err != nil {
		return nil, err
	}
	// Percentages and fractions are both accepted; no percentage of 1 or less makes sense.
	if a.TargetUtilization > 1 {
		a.TargetUtilization /= 100
	}
	a.checkTimes(v)
	a.checkTargets(v)
	a.checkBounds(v)
	return a, v.err()
}

func (a *Autoscaler) checkTimes(v *values) {
	v.check(a.ScaleToZeroGracePeriod > 0, "scale-to-zero-grace-period must be positive, was: %v", a.ScaleToZeroGracePeriod)
	v.check(a.ScaleDownDelay >= 0, "scale-down-delay cannot be negative, was: %v", a.ScaleDownDelay)
	v.check(wholeSeconds(a.ScaleDownDelay), "scale-down-delay = %v, must be specified with at most second precision", a.ScaleDownDelay)
	v.check(a.ScaleToZeroPodRetentionPeriod >= 0,
		"scale-to-zero-pod-retention-period cannot be negative, was: %v", a.ScaleToZeroPodRetentionPeriod)
	v.check(a.StableWindow >= autoscaling.WindowMin && a.StableWindow <= autoscaling.WindowMax,
		"stable-window = %v, must be in [%v; %v] range", a.StableWindow, autoscaling.WindowMin, autoscaling.WindowMax)
	v.check(wholeSeconds(a.StableWindow), "stable-window = %v, must be specified with at most second precision", a.StableWindow)
	v.check(a.PanicWindowPercentage >= autoscaling.PanicWindowPercentageMin && a.PanicWindowPercentage <= autoscaling.PanicWindowPercentageMax,
		"panic-window-percentage = %v, must be in [%v, %v] interval",
		a.PanicWindowPercentage, autoscaling.PanicWindowPercentageMin, autoscaling.PanicWindowPercentageMax)
}

func (a *Autoscaler) checkTargets(v *values) {
	v.check(a.TargetBurstCapacity >= 0 || a.TargetBurstCapacity == -1,
		"target-burst-capacity must be either non-negative or -1 (for unlimited), was: %f", a.TargetBurstCapacity)
	v.check(a.TargetUtilization > 0 && a.TargetUtilization <= 1,
		"container-concurrency-target-percentage = %f is outside of valid range of (0, 100]", a.TargetUtilization)
	v.check(a.TargetUtilization*a.ConcurrencyTarget >= autoscaling.TargetMin,
		"container-concurrency-target-percentage and container-concurrency-target-default yield target concurrency of %v, can't be less than %v",
		a.TargetUtilization*a.ConcurrencyTarget, autoscaling.TargetMin)
	v.check(a.RPSTarget >= autoscaling.TargetMin,
		"requests-per-second-target-default must be at least %v, was: %v", autoscaling.TargetMin, a.RPSTarget)
	v.check(a.ActivatorCapacity >= 1, "activator-capacity = %v, must be at least 1", a.ActivatorCapacity)
	v.check(a.MaxScaleUpRate > 1, "max-scale-up-rate = %v, must be greater than 1.0", a.MaxScaleUpRate)
	v.check(a.MaxScaleDownRate > 1, "max-scale-down-rate = %v, must be greater than 1.0", a.MaxScaleDownRate)
}

func (a *Autoscaler) checkBounds(v *values) {
	v.check(a.InitialScale > 0 || (a.InitialScale == 0 && a.AllowZeroInitialScale),
		"initial-scale = %v, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)", a.InitialScale)
	v.check(a.MinScale >= 0, "min-scale = %v, must be at least 0", a.MinScale)
	v.check(a.MaxScaleLimit >= 0, "max-scale-limit = %v, must be at least 0", a.MaxScaleLimit)
	// With a limit, no revision may be without a bound, so the default needs one too.
	least := int32(0)
	if a.MaxScaleLimit > 0 {
		least = 1
	}
	v.check(a.MaxScale >= least && (a.MaxScaleLimit <= 0 || a.MaxScale <= a.MaxScaleLimit),
		"max-scale = %d, must be in [%d, max-scale-limit(%d)] range", a.MaxScale, least, a.MaxScaleLimit)
	v.check(a.MaxScale <= 0 || a.MinScale <= a.MaxScale, "min-scale (%d) must be less than max-scale (%d)", a.MinScale, a.MaxScale)
}

func wholeSeconds(d time.Duration) bool { return d.Truncate(time.Second) == d }

// apply writes a into the structure that the validation of Knative's types reads from the context. Its type lives in a package
// that is not a published API, so it is reached through the published one.
func (a *Autoscaler) apply(to *apiconfig.Config) {
	to.Autoscaler = apiconfig.FromContextOrDefaults(context.Background()).Autoscaler
	t := to.Autoscaler
	t.EnableScaleToZero, t.AllowZeroInitialScale = a.EnableScaleToZero, a.AllowZeroInitialScale
	t.ContainerConcurrencyTargetFraction, t.ContainerConcurrencyTargetDefault = a.TargetUtilization, a.ConcurrencyTarget
	t.RPSTargetDefault, t.TargetBurstCapacity, t.ActivatorCapacity = a.RPSTarget, a.TargetBurstCapacity, a.ActivatorCapacity
	t.InitialScale, t.MinScale, t.MaxScale, t.MaxScaleLimit = a.InitialScale, a.MinScale, a.MaxScale, a.MaxScaleLimit
	t.MaxScaleUpRate, t.MaxScaleDownRate = a.MaxScaleUpRate, a.MaxScaleDownRate
	t.StableWindow, t.PanicWindowPercentage = a.StableWindow, a.PanicWindowPercentage
	t.PanicThresholdPercentage, t.ScaleDownDelay = a.PanicThresholdPercentage, a.ScaleDownDelay
	t.ScaleToZeroGracePeriod, t.ScaleToZeroPodRetentionPeriod = a.ScaleToZeroGracePeriod, a.ScaleToZeroPodRetentionPeriod
	t.PodAutoscalerClass = a.Class
}
