package scale

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/autoscaler/kpa"
)

// Insight is what a Scaler measures of a revision now and concludes from it, for people who ask why. Its JSON form is served on
// the platform's debug socket.
type Insight struct {
	// Stable and Panic are the averages over the two windows, in the unit of the metric; Waiting is what is in flight or parked now.
	Stable  float64 `json:"stable"`
	Panic   float64 `json:"panic"`
	Waiting float64 `json:"waiting"`
	// Ready instances can serve, Want is the number that is aimed at, and Replicas what the Deployment asks for; -1 is unknown.
	Ready    int32 `json:"ready"`
	Want     int32 `json:"want"`
	Replicas int32 `json:"replicas"`
	// InPanic says that nothing is scaled down because load was over the panic threshold, last at PanicSince.
	InPanic    bool      `json:"inPanic"`
	PanicSince time.Time `json:"panicSince,omitzero"`
	// Because says why Want is what it is, in the words of the Events.
	Because string `json:"because"`
	// Observed is for how long the load has been known without a gap; before a whole window nothing is scaled down.
	Observed time.Duration `json:"observed"`
}

// Look returns the Insight of a revision, and whether the Scaler knows the revision. It decides nothing.
func (s *Scaler) Look(key types.NamespacedName, now time.Time) (Insight, bool) {
	s.mu.RLock()
	r := s.revisions[key]
	s.mu.RUnlock()
	if r == nil {
		return Insight{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known || r.gone {
		return Insight{}, false
	}
	c := r.seen.Settings
	sample := r.sample(now)
	d := kpa.Decide(r.state, sample, c, now)
	plan := kpa.Limit(d, r.situation(now), c, now)
	return Insight{
		Stable: sample.Stable, Panic: sample.Panic, Waiting: sample.Waiting,
		Ready: r.seen.Ready, Want: plan.Want, Replicas: r.replicas,
		InPanic: d.Panic, PanicSince: d.Next.PanicSince,
		Because: kpa.Because(r.replicas, plan.Want, d, plan, c), Observed: r.observed(now),
	}, true
}
