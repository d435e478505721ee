package gc

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/configuration"
	"github.com/weft-dev/weft/serving/servingtest"
)

// fixture is a cluster with the configuration hello and its revisions.
type fixture struct {
	*servingtest.Cluster
	t        *testing.T
	snapshot *config.Snapshot
	now      time.Time
}

func newFixture(t *testing.T, g config.GC, revisions ...servingv1.Revision) *fixture {
	t.Helper()
	objects := []client.Object{hello()}
	for i := range revisions {
		objects = append(objects, &revisions[i])
	}
	f := &fixture{Cluster: servingtest.New(t, []servingtest.Indexes{configuration.AddIndexes}, objects...), t: t, now: now}
	snapshot := *config.Default(config.Domains{})
	snapshot.GC = &g
	f.snapshot = &snapshot
	return f
}

// reconcile runs once and returns when to run again and which revisions are left.
func (f *fixture) reconcile() (wait time.Duration, left []string) {
	f.t.Helper()
	r := New(f.Store, func() *config.Snapshot { return f.snapshot }, func() time.Time { return f.now })
	result, err := r.Reconcile(f.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "default", Name: "hello"}})
	if err != nil {
		f.t.Fatal(err)
	}
	var list servingv1.RevisionList
	if err := f.Store.List(f.t.Context(), &list); err != nil {
		f.t.Fatal(err)
	}
	for i := range list.Items {
		left = append(left, list.Items[i].Name)
	}
	slices.Sort(left)
	return result.RequeueAfter, left
}

// TestReconcile lets time pass exactly to the moments that the reconciler names.
func TestReconcile(t *testing.T) {
	t.Parallel()
	f := newFixture(t, config.GC{RetainSinceCreateTime: hours(48), RetainSinceLastActiveTime: hours(15), MaxNonActiveRevisions: config.Disabled},
		rev("hello-00001", 100, 20), rev("hello-00002", 40, 20), rev("hello-00003", 100, 5), rev("hello-00008", 100, 100))
	wait, left := f.reconcile()
	if diff := cmp.Diff([]string{"hello-00002", "hello-00003", "hello-00008"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	told := []string{`Normal RevisionCollected Deleted revision "hello-00001": it was created 100h0m0s ago and has had no route for 20h0m0s`}
	if diff := cmp.Diff(told, f.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if wait != hours(8) {
		t.Fatalf("it asks to be called after %s, want 8h", wait)
	}
	f.now = f.now.Add(wait)
	if wait, left = f.reconcile(); wait != hours(2) || len(left) != 2 {
		t.Errorf("after 8h %q are left and the next is due after %s, want two and 2h", left, wait)
	}
	f.now = f.now.Add(wait)
	if wait, left = f.reconcile(); wait != 0 || !slices.Equal(left, []string{"hello-00008"}) {
		t.Errorf("at last %q are left and the next is due after %s, want the latest ready one and never", left, wait)
	}
}

// TestReconcileRace wants a revision that gets a route while it is judged to stay.
func TestReconcileRace(t *testing.T) {
	t.Parallel()
	f := newFixture(t, config.GC{}, rev("hello-00001", 100, 20))
	live, ok := f.Store.Client.(client.WithWatch)
	if !ok {
		t.Fatal("the client in memory cannot be wrapped")
	}
	f.Store.Client = interceptor.NewClient(live, interceptor.Funcs{
		Delete: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			servingtest.Change(t, f.Cluster, o.GetName(), func(r *servingv1.Revision) { r.SetRoutingState(servingv1.RoutingStateActive, now) })
			return cl.Delete(ctx, o, opts...)
		},
	})
	if _, left := f.reconcile(); !slices.Equal(left, []string{"hello-00001"}) {
		t.Errorf("%q are left, want the one that has a route now", left)
	}
	if told := f.Events(); len(told) != 0 {
		t.Errorf("events are %q, want none", told)
	}
}
