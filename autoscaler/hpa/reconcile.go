package hpa

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/autoscaler/settings"
	"github.com/weft-dev/weft/serving/owned"
)

const (
	kind = "HorizontalPodAutoscaler"
	// patience is how long a HorizontalPodAutoscaler may have no figures before users hear of it. A new instance has none for a while.
	patience = 30 * time.Second
)

// Seen is what the API server says of the instances.
type Seen struct {
	// Replicas is what the target asks for, negative when that is not known. Ready is the number of instances that can serve.
	Replicas, Ready int32
	Settings        settings.Settings
}

// Outcome is what is left to do.
type Outcome struct {
	// Replicas is what the target must be scaled to by the caller, because nobody else would; 0 is nothing to do.
	Replicas int32
	// After is when to look again although nothing happens; 0 is never.
	After time.Duration
}

// Reconciler keeps the HorizontalPodAutoscalers. It is safe for concurrent use on different PodAutoscalers.
type Reconciler struct {
	store owned.Store
	now   func() time.Time

	// mu guards told.
	mu   sync.Mutex
	told map[types.NamespacedName]told
}

// told is what users have heard of a revision.
type told struct {
	scale   int32
	problem string
}

// New returns a Reconciler.
func New(store owned.Store, now func() time.Time) *Reconciler {
	return &Reconciler{store: store, now: now, told: map[types.NamespacedName]told{}}
}

// Reconcile brings the HorizontalPodAutoscaler of pa up to date and sets the status of pa, which the caller writes, in any case: also
// when there is an error.
func (r *Reconciler) Reconcile(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler, seen Seen) (Outcome, error) {
	h, err := r.ensure(ctx, pa, seen.Settings)
	if err != nil {
		explain(pa, err)
		return Outcome{}, err
	}
	scale := desired(h, seen)
	wait := r.tell(pa, h, scale)
	render(pa, seen, scale)
	outcome := Outcome{After: wait}
	if seen.Replicas == 0 {
		outcome.Replicas = least(seen.Settings)
	}
	return outcome, nil
}

// Release removes the HorizontalPodAutoscaler of a PodAutoscaler that is of another class now.
func (r *Reconciler) Release(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler) error {
	key := client.ObjectKeyFromObject(pa)
	r.Forget(key)
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := r.store.Get(ctx, key, &h); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil
		}
		return fmt.Errorf("reading %s %q: %w", kind, key, err)
	}
	if !metav1.IsControlledBy(&h, pa) || h.DeletionTimestamp != nil {
		return nil
	}
	if err := r.store.Delete(ctx, &h, client.Preconditions{UID: &h.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %s %q: %w", kind, key, err)
	}
	r.store.Events.Eventf(pa, nil, corev1.EventTypeNormal, "Deleted", "Delete", "Deleted %s %q: the class is %s now", kind, h.Name, pa.Class())
	return nil
}

// Forget drops what is remembered of a PodAutoscaler that is gone.
func (r *Reconciler) Forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, key)
}

func (r *Reconciler) ensure(
	ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler, c settings.Settings,
) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	want := Build(pa, c)
	have, created, err := owned.Ensure(ctx, r.store, pa, want, kind)
	if err != nil || created || same(&want.Spec, &have.Spec) {
		return have, err
	}
	updated := have.DeepCopy()
	updated.Spec, updated.Labels, updated.Annotations = want.Spec, want.Labels, want.Annotations
	return updated, r.store.Save(ctx, updated, kind)
}

// tell leaves Events for what is new, and returns when there might be something.
func (r *Reconciler) tell(pa *autoscalingv1alpha1.PodAutoscaler, h *autoscalingv2.HorizontalPodAutoscaler, scale int32) time.Duration {
	key := client.ObjectKeyFromObject(pa)
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.told[key]
	if !known {
		// After a restart, the status says what users have heard.
		before.scale = pa.Status.GetDesiredScale()
	}
	next := told{scale: before.scale, problem: before.problem}
	if scale != before.scale {
		if decided(h) && before.scale > 0 {
			reason := "ScaledDown"
			if scale > before.scale {
				reason = "ScaledUp"
			}
			r.store.Events.Eventf(pa, h, corev1.EventTypeNormal, reason, "Scale", "Scaled from %d to %d: %s", before.scale, scale, because(h))
		}
		next.scale = scale
	}
	problem, wait := r.problem(h)
	if problem != nil && problem.Message != before.problem {
		r.store.Events.Eventf(pa, h, corev1.EventTypeWarning, problem.Reason, "Scale",
			"The number of instances stays as it is: %s", problem.Message)
		next.problem = problem.Message
	}
	if problem == nil && wait == 0 {
		next.problem = ""
	}
	r.told[key] = next
	return wait
}

// problem is why h cannot scale, if that has been so for long, or when it will have been.
func (r *Reconciler) problem(h *autoscalingv2.HorizontalPodAutoscaler) (*autoscalingv2.HorizontalPodAutoscalerCondition, time.Duration) {
	for _, name := range []autoscalingv2.HorizontalPodAutoscalerConditionType{autoscalingv2.AbleToScale, autoscalingv2.ScalingActive} {
		c := condition(h, name)
		if c == nil || c.Status != corev1.ConditionFalse || c.Reason == "ScalingDisabled" {
			continue
		}
		if left := patience - r.now().Sub(c.LastTransitionTime.Time); left > 0 {
			return nil, left
		}
		return c, 0
	}
	return nil, 0
}

// explain says in the status why there is no HorizontalPodAutoscaler.
func explain(pa *autoscalingv1alpha1.PodAutoscaler, err error) {
	if notOwned := (*owned.NotOwnedError)(nil); errors.As(err, &notOwned) {
		pa.Status.MarkResourceNotOwned(kind, pa.Name)
		return
	}
	pa.Status.MarkResourceFailedCreation(kind, pa.Name)
}
