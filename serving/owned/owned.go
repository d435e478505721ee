// Package owned creates and finds the objects that a reconciler owns: read from the cache, create when missing, check the
// owner, tell the user by an Event. The reconcilers below serving/ call it; it must not import one of them.
package owned

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Store is what a reconciler needs to keep the objects that it owns.
type Store struct {
	// Client reads from the cache and writes to the API server.
	client.Client
	// Live reads from the API server. It is asked only when the cache is known to be behind.
	Live client.Reader
	// Events tells users what was done.
	Events events.EventRecorder
}

// NotOwnedError says that an object of the wanted name exists and belongs to somebody else.
type NotOwnedError struct {
	// Owner is the name of the object that wanted it.
	Owner string
	// Kind and Name are those of the existing object.
	Kind, Name string
}

// Error implements error.
func (e *NotOwnedError) Error() string {
	return fmt.Sprintf("%q does not own %s %q", e.Owner, e.Kind, e.Name)
}

// pointer is a *T that is an API object.
type pointer[T any] interface {
	*T
	client.Object
}

// Ensure returns the object with the name of desired, which it creates when there is none. kind names it to the user. The
// result must not be changed when created is false: it is the cache's. When the object belongs to somebody else the error is
// a *NotOwnedError.
func Ensure[T any, P pointer[T]](ctx context.Context, s Store, owner client.Object, desired P, kind string) (object P, created bool, err error) {
	key := client.ObjectKeyFromObject(desired)
	existing := P(new(T))
	err = s.Get(ctx, key, existing, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if apierrors.IsNotFound(err) {
		err = s.Create(ctx, desired)
		if err == nil {
			s.Events.Eventf(owner, nil, corev1.EventTypeNormal, "Created", "Create", "Created %s %q", kind, desired.GetName())
			return desired, true, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			s.Events.Eventf(owner, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create %s %q: %v", kind, desired.GetName(), err)
			return nil, false, fmt.Errorf("creating %s %q: %w", kind, desired.GetName(), err)
		}
		// The cache has not seen our last write, or somebody was faster.
		existing = P(new(T))
		err = s.Live.Get(ctx, key, existing)
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading %s %q: %w", kind, desired.GetName(), err)
	}
	if !metav1.IsControlledBy(existing, owner) {
		err := &NotOwnedError{Owner: owner.GetName(), Kind: kind, Name: desired.GetName()}
		s.Events.Eventf(owner, nil, corev1.EventTypeWarning, "NotOwned", "Create", "%v", err)
		return nil, false, err
	}
	return existing, false, nil
}

// Save writes object after its caller changed it.
func (s Store) Save(ctx context.Context, object client.Object, kind string) error {
	if err := s.Update(ctx, object); err != nil {
		return fmt.Errorf("updating %s %q: %w", kind, object.GetName(), err)
	}
	return nil
}
