package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/configuration"
	"github.com/weft-dev/weft/serving/owned"
)

// Reconciler deletes the revisions of a Configuration that have outlived their use. It is safe for concurrent use on different
// Configurations.
type Reconciler struct {
	store  owned.Store
	config func() *config.Snapshot
	now    func() time.Time
}

// New returns a reconciler that works on store, whose cache has the indexes of package configuration. config returns the
// configuration in force, and now is the clock.
func New(store owned.Store, config func() *config.Snapshot, now func() time.Time) *Reconciler {
	return &Reconciler{store: store, config: config, now: now}
}

// Reconcile implements reconcile.Reconciler. It asks to be called again when the next revision becomes too old.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	c := &servingv1.Configuration{}
	if err := r.store.Get(ctx, req.NamespacedName, c, &client.GetOptions{UnsafeDisableDeepCopy: new(true)}); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if c.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	revisions, err := configuration.Revisions(ctx, r.store, c)
	if err != nil {
		return reconcile.Result{}, err
	}
	revisions = slices.DeleteFunc(revisions, func(rev servingv1.Revision) bool { return rev.DeletionTimestamp != nil })

	settings, now := r.config().GC, r.now()
	var next time.Time
	for i, v := range Verdicts(c, revisions, settings, now) {
		if v.Delete() {
			err = errors.Join(err, r.remove(ctx, c, &revisions[i], why(&revisions[i], v, settings, now)))
		} else if !v.Until.IsZero() && (next.IsZero() || v.Until.Before(next)) {
			next = v.Until
		}
	}
	if err != nil || next.IsZero() {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: next.Sub(now)}, nil
}

// remove deletes a revision as it was judged: one that has changed meanwhile, because it got a route, is judged again when the
// cache has seen it.
func (r *Reconciler) remove(ctx context.Context, c *servingv1.Configuration, rev *servingv1.Revision, reason string) error {
	err := r.store.Delete(ctx, rev, client.Preconditions{UID: &rev.UID, ResourceVersion: &rev.ResourceVersion})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("deleting revision %q: %w", rev.Name, err)
	}
	r.store.Events.Eventf(c, rev, corev1.EventTypeNormal, "RevisionCollected", "Delete", "Deleted revision %q: %s", rev.Name, reason)
	return nil
}
