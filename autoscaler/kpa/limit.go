package kpa

import (
	"time"

	"github.com/weft-dev/weft/autoscaler/settings"
)

// activationBuffer is how much longer than the progress deadline a start may take, so that the cause of a failure has been
// reported before the instances are removed.
const activationBuffer = 30 * time.Second

// Unknown is a scale that is not known yet.
const Unknown = int32(-1)

// Phase is where a revision is between none and enough instances; its Active condition says the same.
type Phase int

// The phases. A new revision is Activating.
const (
	Activating Phase = iota
	Active
	Inactive
)

// String is the name in logs.
func (p Phase) String() string {
	switch p {
	case Active:
		return "Active"
	case Inactive:
		return "Inactive"
	default:
		return "Activating"
	}
}

// Situation is how things stand.
type Situation struct {
	Phase Phase
	// Since is when Phase began.
	Since time.Time
	// Initialized says that InitialScale has been reached once.
	Initialized bool
	// Replicas is what the Deployment asks for now, or Unknown.
	Replicas int32
	// Observed is for how long the load has been known without a gap.
	Observed time.Duration
}

// Cause says which rule had the last word.
type Cause int

// The causes.
const (
	// ByLoad is the algorithm's own number.
	ByLoad Cause = iota
	// ByMinScale, ByMaxScale and ByInitialScale are bounds.
	ByMinScale
	ByMaxScale
	ByInitialScale
	// ByNoZero is a scale of zero where config-autoscaler permits none.
	ByNoZero
	// Idle is the way to zero.
	Idle
	// TimedOut gives up on instances that do not become ready.
	TimedOut
	// Holding keeps what is there, because it is too early to know better.
	Holding
)

// Plan is what should be done.
type Plan struct {
	// Want is the scale that is aimed at; it is the status's desiredScale.
	Want int32
	// Replicas is what the Deployment should ask for now: Want, except while the last instance is retained.
	Replicas int32
	// Cause had the last word.
	Cause Cause
	// Check is when to look again although nothing happens; 0 is never.
	Check time.Duration
}

// Limit fits a decision into the bounds and the life of a revision.
func Limit(d Decision, s Situation, c settings.Settings, now time.Time) Plan {
	scale, cause := d.Scale, ByLoad
	check := time.Duration(0)
	if s.Observed < c.StableWindow && scale < s.Replicas {
		scale, cause, check = s.Replicas, Holding, c.StableWindow-s.Observed
	}
	least, leastCause := c.MinScale, ByMinScale
	if c.InitialScale > 1 && !s.Initialized && !c.Unreachable && c.InitialScale > least {
		least, leastCause = c.InitialScale, ByInitialScale
	}
	switch {
	case scale < least:
		scale, cause = least, leastCause
	case c.MaxScale > 0 && scale > c.MaxScale && scale > least:
		scale, cause = max(c.MaxScale, least), ByMaxScale
	}
	if scale > 0 {
		return Plan{Want: scale, Replicas: scale, Cause: cause, Check: check}
	}
	if !c.ScaleToZero {
		return Plan{Want: 1, Replicas: 1, Cause: ByNoZero}
	}
	return toZero(s, c, now)
}

// toZero decides when nothing is needed and nothing may be all that is left.
func toZero(s Situation, c settings.Settings, now time.Time) Plan {
	elapsed := now.Sub(s.Since)
	switch s.Phase {
	case Activating:
		deadline := c.ProgressDeadline + activationBuffer
		if elapsed > deadline {
			return Plan{Cause: TimedOut}
		}
		hold := s.Replicas
		if !s.Initialized && !c.Unreachable {
			hold = max(hold, c.InitialScale)
		}
		if hold == 0 {
			return Plan{Cause: Idle}
		}
		// One past the deadline, because that is when it is over.
		return Plan{Want: hold, Replicas: hold, Cause: Holding, Check: deadline - elapsed + time.Millisecond}
	case Active:
		if elapsed < c.StableWindow {
			return Plan{Want: 1, Replicas: 1, Cause: Holding, Check: c.StableWindow - elapsed}
		}
		// Inactive begins now, and with it the retention.
		elapsed = 0
	case Inactive:
	}
	if elapsed >= c.Retention {
		return Plan{Cause: Idle}
	}
	return Plan{Replicas: min(max(s.Replicas, 0), 1), Cause: Idle, Check: c.Retention - elapsed}
}

// Progress is the phase that follows from a plan and the instances that are ready, and whether the revision has been initialized. It
// is Knative's table for the Active condition.
func Progress(s Situation, p Plan, ready int32, c settings.Settings) (next Phase, initialized bool) {
	enough := max(c.MinScale, 1)
	if !s.Initialized {
		enough = max(c.MinScale, c.InitialScale)
	}
	initialized = s.Initialized || ready >= enough
	switch {
	case p.Want == 0 || enough == 0:
		return Inactive, initialized
	case ready < enough:
		return Activating, initialized
	default:
		return Active, initialized
	}
}
