// Package scale keeps each revision at the number of instances that it needs. Its Scaler holds what is known of every revision (load,
// settings, instances), decides with autoscaler/kpa, and patches the scale of Deployments; its Reconciler follows PodAutoscaler
// objects and reports in their status. autoscaler wires both into a manager.
//
// A revision is looked at when a report says that requests wait, when its objects change, and every two seconds while it has load or
// had some within its window. A revision without load costs nothing: it has no timer and no goroutine.
//
// The way of a wake, the first request to a revision at zero, is as short as it can be: the goroutine of the proxy's stream decides
// and starts the patch; no queue, no tick and no cache is in between. Status and Events follow when the patch is on its way.
package scale

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/autoscaler/kpa"
	"github.com/weft-dev/weft/autoscaler/settings"
	"github.com/weft-dev/weft/mesh/telemetry"
)

const (
	// tick is how often a revision with load is looked at.
	tick = 2 * time.Second
	// fresh is how long the numbers in a report stand for the present.
	fresh = 2500 * time.Millisecond
	// maxUnknown bounds the revisions whose reports arrived before their PodAutoscaler did; reports for more are dropped.
	maxUnknown = 10_000
)

// Target is a Deployment to scale.
type Target struct {
	Namespace, Name string
}

// Patcher changes the scale of a Target. It is called from many goroutines, at most once at a time per Target, and returns the
// resource version that the change made.
type Patcher interface {
	Scale(ctx context.Context, target Target, replicas int32) (resourceVersion string, err error)
}

// Options of a Scaler. All fields are required.
type Options struct {
	Patcher Patcher
	// Observed tells for how long the loads have been known without a gap.
	Observed func(now time.Time) time.Duration
	// Changed is called when the status of a PodAutoscaler is out of date. It must not block.
	Changed func(key types.NamespacedName)
	Logger  *slog.Logger
}

// Scaler decides for all revisions. Its methods may be called from any goroutine.
type Scaler struct {
	options Options
	wakes   wakeLog
	// woken and failures count starts from zero and patches that failed; wakeSeconds is nil without Metrics.
	woken, failures atomic.Uint64
	wakeSeconds     prometheus.Histogram

	// ctx is the time of Run; patches end with it.
	ctx    context.Context //nolint:containedctx // patches start from streams and timers, which have no context of their own.
	cancel context.CancelFunc

	// life guards closed; it is the innermost lock.
	life   sync.Mutex
	closed bool
	// running counts patches on their way and timers that fire.
	running sync.WaitGroup

	// mu guards what is below; a revision's own lock is taken after it or without it.
	mu        sync.RWMutex
	revisions map[types.NamespacedName]*revision
	// unknown is the number of revisions that are only reported.
	unknown int
}

// New returns a Scaler that knows no revision.
func New(options Options) *Scaler {
	ctx, cancel := context.WithCancel(context.Background())
	return &Scaler{options: options, ctx: ctx, cancel: cancel, revisions: map[types.NamespacedName]*revision{}}
}

// Run waits for ctx to end, then for everything that the Scaler has started.
func (s *Scaler) Run(ctx context.Context) error {
	<-ctx.Done()
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	for _, r := range s.all() {
		r.mu.Lock()
		r.stopTimer()
		r.mu.Unlock()
	}
	s.cancel()
	s.running.Wait()
	return nil
}

// Report takes a proxy's report. Wakes are decided and sent before it returns.
func (s *Scaler) Report(report *telemetry.LoadReport, received time.Time) {
	for _, load := range report.GetRevisions() {
		key := types.NamespacedName{Namespace: load.GetNamespace(), Name: load.GetRevision()}
		if r := s.find(key, true); r != nil {
			r.report(report.GetProxy(), load, received)
		}
	}
}

// Gone forgets what a proxy had in flight.
func (s *Scaler) Gone(proxy string) {
	for _, r := range s.all() {
		r.mu.Lock()
		delete(r.now, proxy)
		r.mu.Unlock()
	}
}

// all lists the revisions at this moment.
func (s *Scaler) all() []*revision {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.revisions))
}

// Observation is what the API server says of a revision.
type Observation struct {
	// Object is the PodAutoscaler, for Events.
	Object *corev1.ObjectReference
	Target Target
	// Replicas is what the Deployment asks for, or kpa.Unknown; Version is the Deployment's resource version.
	Replicas int32
	Version  string
	// Ready is the number of instances that can serve.
	Ready    int32
	Settings settings.Settings
	// Phase, Since and Initialized are from the PodAutoscaler's status. They count only when the revision is new to the Scaler.
	Phase       kpa.Phase
	Since       time.Time
	Initialized bool
}

// Status is what the PodAutoscaler's status should say.
type Status struct {
	Want, Ready int32
	Phase       kpa.Phase
	Since       time.Time
	Initialized bool
	TimedOut    bool
	// Reason is why the scale was changed last; empty when this process has not changed it.
	Reason string
}

// Event is a change of scale that the user should hear of.
type Event struct {
	Up   bool
	Note string
}

// Observe takes an Observation, decides anew, and returns what to report.
func (s *Scaler) Observe(key types.NamespacedName, o Observation) (Status, []Event) {
	return s.find(key, false).observe(o, time.Now())
}

// Forget drops a revision whose PodAutoscaler is gone or is not ours.
func (s *Scaler) Forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.revisions[key]
	if !ok {
		return
	}
	s.drop(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.stopTimer()
}

// drop removes r from the map; s.mu is held.
func (s *Scaler) drop(r *revision) {
	delete(s.revisions, r.key)
	if !r.counted {
		return
	}
	r.counted = false
	s.unknown--
}

// find returns the revision, making it when it is new; nil when there is no room for one that is only reported.
func (s *Scaler) find(key types.NamespacedName, reported bool) *revision {
	s.mu.RLock()
	r := s.revisions[key]
	found := r != nil && (reported || !r.counted)
	s.mu.RUnlock()
	if found {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.revisions[key]
	switch {
	case r == nil && reported && s.unknown >= maxUnknown:
		return nil
	case r == nil:
		r = &revision{scaler: s, key: key, replicas: kpa.Unknown, firstSeen: time.Now(), counted: reported}
		s.revisions[key] = r
		if reported {
			s.unknown++
		}
	case !reported && r.counted:
		r.counted = false
		s.unknown--
	}
	return r
}

// abandon drops r if nobody has claimed it and its load is over.
func (s *Scaler) abandon(r *revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known && s.revisions[r.key] == r {
		s.drop(r)
		r.gone = true
	}
}

// enter counts one piece of work that Run waits for, until leave; it reports false once Run ends.
func (s *Scaler) enter() bool {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

func (s *Scaler) leave() { s.running.Done() }
