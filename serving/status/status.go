// Package status prepares and writes the status of Knative objects, so that every reconciler below serving/ keeps the same
// rules: observedGeneration follows each look at the object, a transition time moves only when its condition does, and a
// status that did not change is not written. It must not import a reconciler.
package status

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// NotReconciled is the reason of a Ready condition when a generation was looked at and nothing could be decided. It is the
// word that upstream's generated reconcilers use.
const NotReconciled = "NewObservedGenFailure"

// Object is a Knative object with conditions.
type Object interface {
	client.Object
	GetStatus() *duckv1.Status
	GetConditionSet() apis.ConditionSet
}

// pointer is a *T that is a Knative object.
type pointer[T any] interface {
	*T
	Object
	DeepCopy() *T
}

// Reconcile reads the object of key, lets decide change its status and whatever else has to change in the cluster, and writes
// the status, also when decide fails: the conditions then say so. An object that is gone or being deleted is left alone.
//
// A conflict that decide meets ends the reconciliation without a word and without a status, which would rest on an old
// version of what was written. The watch that delivers the newer version brings the reconciler back. Neither is there anything to
// say of an object whose namespace is being deleted: it will be, too.
func Reconcile[T any, P pointer[T]](
	ctx context.Context, c client.Client, key client.ObjectKey, decide func(context.Context, P) (reconcile.Result, error),
) (reconcile.Result, error) {
	before := P(new(T))
	if err := c.Get(ctx, key, before, &client.GetOptions{UnsafeDisableDeepCopy: new(true)}); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if before.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, nil
	}
	after := P(before.DeepCopy())
	Begin(after)
	result, err := decide(ctx, after)
	if apierrors.IsConflict(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, nil
	}
	return result, errors.Join(err, Write(ctx, c, before, after))
}

// Begin prepares the status of obj, a copy that the caller may change, for the decisions of one reconciliation.
func Begin(obj Object) {
	s := obj.GetStatus()
	conditions := obj.GetConditionSet().Manage(s)
	conditions.InitializeConditions()
	if s.ObservedGeneration != obj.GetGeneration() {
		// Whatever the old generation reported says nothing about this one.
		conditions.MarkUnknown(obj.GetConditionSet().GetTopLevelConditionType(), NotReconciled, "unsuccessfully observed a new generation")
	}
}

// Write finishes the status of after and stores it when it differs from that of before, the object as it was read.
//
// A conflict is no error: it means that a newer version of the object exists, and the watch that delivers it brings the
// reconciler back. An object that is gone needs no status either.
func Write(ctx context.Context, c client.StatusClient, before, after Object) error {
	after.GetStatus().ObservedGeneration = after.GetGeneration()
	settle(before.GetStatus(), after.GetStatus(), time.Now())
	if equality.Semantic.DeepEqual(before, after) {
		return nil
	}
	err := c.Status().Update(ctx, after)
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("writing status of %s/%s: %w", after.GetNamespace(), after.GetName(), err)
}

// Verbatim returns conditions for a method of Knative's types that copies them to another object. Those methods take the
// message as a format, so that a percent sign in it would be read as a verb.
func Verbatim(conditions duckv1.Conditions) duckv1.Conditions {
	out := slices.Clone(conditions)
	for i := range out {
		out[i].Message = Escape(out[i].Message)
	}
	return out
}

// Escape protects the percent signs of a message from a method that takes it as a format.
func Escape(message string) string {
	return strings.ReplaceAll(message, "%", "%%")
}

// settle gives conditions that are as they were their old transition time, and all others now. A decision that passes
// through an intermediate value would otherwise look like a change.
func settle(before, after *duckv1.Status, now time.Time) {
	for i := range after.Conditions {
		c := &after.Conditions[i]
		changed := apis.VolatileTime{Inner: metav1.NewTime(now)}
		if old := before.GetCondition(c.Type); old != nil {
			c.LastTransitionTime = old.LastTransitionTime
			if reflect.DeepEqual(c, old) {
				continue
			}
		}
		c.LastTransitionTime = changed
	}
}
