package configuration

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/status"
)

const kindRevision = "Revision"

// Reconciler makes a Revision of each generation of a Configuration. It is safe for concurrent use on different
// Configurations.
type Reconciler struct {
	store owned.Store
	now   func() time.Time
}

// New returns a reconciler that works on store, whose cache has the indexes of AddIndexes. now stamps routing states.
func New(store owned.Store, now func() time.Time) *Reconciler {
	return &Reconciler{store: store, now: now}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	return status.Reconcile(ctx, r.store, req.NamespacedName, r.reconcile)
}

func (r *Reconciler) reconcile(ctx context.Context, c *servingv1.Configuration) (reconcile.Result, error) {
	created, err := r.created(ctx, c)
	if created == nil || err != nil {
		return reconcile.Result{}, err
	}
	before := c.Status.DeepCopy()
	reflectCreated(c, created)
	r.tellFailure(before, c)
	return reconcile.Result{}, r.promote(ctx, c, created)
}

// created returns the revision of the present generation. It is nil without an error when its name is taken.
func (r *Reconciler) created(ctx context.Context, c *servingv1.Configuration) (*servingv1.Revision, error) {
	revision, _, err := owned.Ensure(ctx, r.store, c, Revision(c, r.now()), kindRevision)
	notOwned, refused := (*owned.NotOwnedError)(nil), (*apierrors.StatusError)(nil)
	switch {
	case errors.As(err, &notOwned), err == nil && !Matches(c, revision):
		// Nothing to retry: the watch on revisions brings us back when the other one goes.
		taken := apierrors.NewAlreadyExists(servingv1.Resource("revisions"), RevisionName(c))
		c.Status.MarkRevisionCreationFailed(taken.Error())
		return nil, nil
	case errors.As(err, &refused) && !apierrors.IsConflict(err):
		c.Status.MarkRevisionCreationFailed(refused.Error())
	}
	return revision, err
}

// promote moves the latest ready revision forward.
func (r *Reconciler) promote(ctx context.Context, c *servingv1.Configuration, created *servingv1.Revision) error {
	revisions, err := Revisions(ctx, r.store, c)
	if err != nil {
		return err
	}
	name := latestReady(c, created, revisions)
	if name == "" {
		return nil
	}
	old := c.Status.LatestReadyRevisionName
	c.Status.SetLatestReadyRevisionName(name)
	if old == "" {
		r.event(c, corev1.EventTypeNormal, "ConfigurationReady", "Configuration becomes ready")
	}
	if old != name {
		r.event(c, corev1.EventTypeNormal, "LatestReadyUpdate", "LatestReadyRevisionName updated to %q", name)
	}
	return nil
}

// tellFailure emits an Event when the Ready condition has turned False since before.
func (r *Reconciler) tellFailure(before *servingv1.ConfigurationStatus, c *servingv1.Configuration) {
	ready := c.Status.GetCondition(servingv1.ConfigurationConditionReady)
	if !ready.IsFalse() {
		return
	}
	if old := before.GetCondition(servingv1.ConfigurationConditionReady); old != nil &&
		equality.Semantic.DeepEqual([]string{string(old.Status), old.Message}, []string{string(ready.Status), ready.Message}) {
		return
	}
	created := c.Status.LatestCreatedRevisionName
	if created == c.Status.LatestReadyRevisionName {
		r.event(c, corev1.EventTypeWarning, "LatestReadyFailed", "Latest ready revision %q has failed", created)
		return
	}
	r.event(c, corev1.EventTypeWarning, "LatestCreatedFailed", "Latest created revision %q has failed", created)
}

func (r *Reconciler) event(c *servingv1.Configuration, kind, reason, note string, args ...any) {
	r.store.Events.Eventf(c, nil, kind, reason, "Reconcile", note, args...)
}
