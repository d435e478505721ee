package status

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var key = types.NamespacedName{Namespace: "default", Name: "hello"}

// stored returns a client that holds one revision of generation 2, of which generation 1 was ready, and counts status writes,
// each of which fails with refuse unless that is nil.
func stored(t *testing.T, refuse error) (client.Client, *int) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := servingv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	r := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Generation: 2}}
	r.Status.InitializeConditions()
	r.Status.MarkContainerHealthyTrue()
	r.Status.MarkResourcesAvailableTrue()
	r.Status.ObservedGeneration = 1
	for i := range r.Status.Conditions {
		r.Status.Conditions[i].LastTransitionTime = apis.VolatileTime{Inner: metav1.Unix(1, 0)}
	}
	writes := 0
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(r).WithStatusSubresource(r).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			writes++
			if refuse != nil {
				return refuse
			}
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
	}).Build(), &writes
}

func read(t *testing.T, c client.Client) *servingv1.Revision {
	t.Helper()
	r := &servingv1.Revision{}
	if err := c.Get(t.Context(), key, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// good decides that all is well, by way of something else.
func good(_ context.Context, r *servingv1.Revision) (reconcile.Result, error) {
	r.Status.MarkContainerHealthyFalse("Detour", "")
	r.Status.MarkContainerHealthyTrue()
	return reconcile.Result{}, nil
}

func TestReconcileWritesOnce(t *testing.T) {
	t.Parallel()
	c, writes := stored(t, nil)
	for range 3 {
		if _, err := Reconcile(t.Context(), c, key, good); err != nil {
			t.Fatal(err)
		}
	}
	if *writes != 1 {
		t.Errorf("the status was written %d times, want once: only the generation was new", *writes)
	}
	r := read(t, c)
	if r.Status.ObservedGeneration != 2 || !r.IsReady() {
		t.Errorf("status is %+v, want ready with observedGeneration 2", r.Status)
	}
	if got := r.Status.GetCondition(servingv1.RevisionConditionContainerHealthy).LastTransitionTime.Inner.Time; !got.Equal(time.Unix(1, 0)) {
		t.Errorf("transition time is %v, want that of before: the condition is as it was", got)
	}
}

func TestReconcileReportsFailure(t *testing.T) {
	t.Parallel()
	c, _ := stored(t, nil)
	broken := errors.New("broken")
	_, err := Reconcile(t.Context(), c, key, func(context.Context, *servingv1.Revision) (reconcile.Result, error) {
		return reconcile.Result{}, broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error is %v, want that of the decision", err)
	}
	r := read(t, c)
	if ready := r.Status.GetCondition(servingv1.RevisionConditionReady); !ready.IsUnknown() || ready.Reason != NotReconciled {
		t.Errorf("Ready is %v, want Unknown: nothing is known of the new generation", ready)
	}
}

func TestReconcileConflicts(t *testing.T) {
	t.Parallel()
	conflict := apierrors.NewConflict(servingv1.Resource("revisions"), key.Name, errors.New("newer"))
	t.Run("of the decision", func(t *testing.T) {
		t.Parallel()
		c, writes := stored(t, nil)
		_, err := Reconcile(t.Context(), c, key, func(context.Context, *servingv1.Revision) (reconcile.Result, error) {
			return reconcile.Result{}, conflict
		})
		if err != nil || *writes != 0 {
			t.Errorf("error is %v after %d status writes, want neither: the status would rest on an old version", err, *writes)
		}
	})
	t.Run("of the status", func(t *testing.T) {
		t.Parallel()
		c, writes := stored(t, conflict)
		if _, err := Reconcile(t.Context(), c, key, good); err != nil || *writes != 1 {
			t.Errorf("error is %v after %d writes, want none after one: the newer version brings us back", err, *writes)
		}
	})
	t.Run("of the namespace that is being deleted", func(t *testing.T) {
		t.Parallel()
		c, writes := stored(t, nil)
		terminating := apierrors.NewForbidden(servingv1.Resource("routes"), key.Name, errors.New("namespace is being terminated"))
		terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
		_, err := Reconcile(t.Context(), c, key, func(context.Context, *servingv1.Revision) (reconcile.Result, error) {
			return reconcile.Result{}, fmt.Errorf("creating Route: %w", terminating)
		})
		if err != nil || *writes != 0 {
			t.Errorf("error is %v after %d status writes, want neither: the object goes with its namespace", err, *writes)
		}
	})
	t.Run("anything else is an error", func(t *testing.T) {
		t.Parallel()
		c, _ := stored(t, apierrors.NewInternalError(errors.New("down")))
		if _, err := Reconcile(t.Context(), c, key, good); !apierrors.IsInternalError(err) {
			t.Errorf("error is %v, want that of the write", err)
		}
	})
}

func TestReconcileLeavesTheDead(t *testing.T) {
	t.Parallel()
	c, _ := stored(t, nil)
	called := false
	decide := func(context.Context, *servingv1.Revision) (reconcile.Result, error) {
		called = true
		return reconcile.Result{}, nil
	}
	if _, err := Reconcile(t.Context(), c, types.NamespacedName{Namespace: "default", Name: "none"}, decide); err != nil || called {
		t.Errorf("an object that is gone: error %v, decided %v, want neither", err, called)
	}
	r := read(t, c)
	r.Finalizers = []string{"example.com/wait"}
	if err := c.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := Reconcile(t.Context(), c, key, decide); err != nil || called {
		t.Errorf("an object that is being deleted: error %v, decided %v, want neither", err, called)
	}
}

func TestVerbatim(t *testing.T) {
	t.Parallel()
	reported := servingv1.ConfigurationStatus{}
	reported.Conditions = Verbatim(duckv1.Conditions{{Type: apis.ConditionReady, Status: "False", Reason: "Full", Message: "disk is 100% full"}})
	s := &servingv1.Service{}
	s.Status.PropagateConfigurationStatus(&reported)
	if got, want := s.Status.GetCondition(servingv1.ServiceConditionReady).Message, "disk is 100% full"; got != want {
		t.Errorf("message is %q, want %q", got, want)
	}
}
