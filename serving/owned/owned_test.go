package owned_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/servingtest"
)

func objects() (*servingv1.Route, *corev1.Service) {
	owner := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "hello", UID: "owner"}}
	return owner, &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: servingtest.Namespace, Name: "hello",
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, owner.GetGroupVersionKind())},
	}}
}

func TestEnsure(t *testing.T) {
	t.Parallel()
	owner, want := objects()
	c := servingtest.New(t, nil)
	if _, created, err := owned.Ensure(t.Context(), c.Store, owner, want.DeepCopy(), "thing"); !created || err != nil {
		t.Fatalf("the first call: created=%v, %v", created, err)
	}
	if got := c.Events(); !slices.Equal(got, []string{`Normal Created Created thing "hello"`}) {
		t.Errorf("Events are %q", got)
	}
	got, created, err := owned.Ensure(t.Context(), c.Store, owner, want.DeepCopy(), "thing")
	if created || err != nil || got.Name != "hello" {
		t.Errorf("the second call: %v, created=%v, %v, want the object that is there", got, created, err)
	}
}

func TestEnsureNotOwned(t *testing.T) {
	t.Parallel()
	owner, want := objects()
	foreign := want.DeepCopy()
	foreign.OwnerReferences = nil
	c := servingtest.New(t, nil, foreign)
	_, _, err := owned.Ensure(t.Context(), c.Store, owner, want, "thing")
	var notOwned *owned.NotOwnedError
	if !errors.As(err, &notOwned) || notOwned.Kind != "thing" || notOwned.Name != "hello" {
		t.Errorf("error is %v, want a NotOwnedError about thing hello", err)
	}
	if got, want := c.Events(), []string{`Warning NotOwned "hello" does not own thing "hello"`}; !slices.Equal(got, want) {
		t.Errorf("Events are %q, want %q", got, want)
	}
}

// TestEnsureBehindCache has a cache that never sees what was created: the object is then read from the API server.
func TestEnsureBehindCache(t *testing.T) {
	t.Parallel()
	owner, want := objects()
	c := servingtest.New(t, nil, want.DeepCopy())
	live, ok := c.Store.Client.(client.WithWatch)
	if !ok {
		t.Fatal("the client in memory cannot be wrapped")
	}
	c.Store.Client = interceptor.NewClient(live, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return apierrors.NewNotFound(corev1.Resource("services"), "hello")
		},
	})
	got, created, err := owned.Ensure(t.Context(), c.Store, owner, want.DeepCopy(), "thing")
	if created || err != nil || got.Name != "hello" {
		t.Errorf("%v, created=%v, %v, want the stored object", got, created, err)
	}
	if got := c.Events(); len(got) != 0 {
		t.Errorf("Events are %q, want none: nothing was created", got)
	}
}

func TestEnsureRefused(t *testing.T) {
	t.Parallel()
	owner, want := objects()
	c := servingtest.New(t, nil)
	live, ok := c.Store.Client.(client.WithWatch)
	if !ok {
		t.Fatal("the client in memory cannot be wrapped")
	}
	c.Store.Client = interceptor.NewClient(live, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return apierrors.NewForbidden(corev1.Resource("services"), "hello", errors.New("exceeded quota"))
		},
	})
	_, _, err := owned.Ensure(t.Context(), c.Store, owner, want, "thing")
	if !apierrors.IsForbidden(err) {
		t.Errorf("error is %v, want that of the API server", err)
	}
	if got := c.Events(); len(got) != 1 {
		t.Errorf("Events are %q, want one about the failure", got)
	}
}
