package revision_test

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/revision"
	"github.com/weft-dev/weft/serving/servingtest"
)

const name = "hello-00001"

// digests answers what the test says.
type digests struct {
	statuses []servingv1.ContainerStatus
	err      error
	forgot   int
}

func (d *digests) Resolve(*servingv1.Revision) (containers, initContainers []servingv1.ContainerStatus, ready bool, err error) {
	return d.statuses, nil, d.statuses != nil, d.err
}

func (d *digests) Forget(client.ObjectKey) { d.forgot++ }

// fixture is a cluster with one revision.
type fixture struct {
	*servingtest.Cluster
	t          *testing.T
	reconciler *revision.Reconciler
}

func newFixture(t *testing.T, d revision.Digests, wrap func(client.WithWatch) client.Client) fixture {
	t.Helper()
	rev := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{
		Namespace: servingtest.Namespace, Name: name, UID: "uid", Labels: map[string]string{serving.RoutingStateLabelKey: "active"},
	}}
	rev.Spec.Containers = []corev1.Container{{Name: "user-container", Image: "example.com/hello"}}
	c := servingtest.New(t, []servingtest.Indexes{revision.AddIndexes}, rev)
	if wrap != nil {
		live, ok := c.Store.Client.(client.WithWatch)
		if !ok {
			t.Fatal("the client in memory cannot be wrapped")
		}
		c.Store.Client = wrap(live)
	}
	o := revision.Options{Store: c.Store, Config: func() *config.Snapshot { return config.Default(config.Domains{}) }, Now: time.Now}
	if d != nil {
		o.Digests = d
	}
	return fixture{Cluster: c, t: t, reconciler: revision.New(o)}
}

// reconcile runs once and returns the revision and the error.
func (f fixture) reconcile() (*servingv1.Revision, error) {
	f.t.Helper()
	_, err := f.reconciler.Reconcile(f.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: servingtest.Namespace, Name: name}})
	return servingtest.Get[servingv1.Revision](f.t, f.Cluster, name), err
}

func (f fixture) check(rev *servingv1.Revision, status corev1.ConditionStatus, reason, message string) {
	f.t.Helper()
	ready := rev.Status.GetCondition(servingv1.RevisionConditionReady)
	if ready.Status != status || ready.Reason != reason || ready.Message != message {
		f.t.Errorf("Ready is %s %s %q, want %s %s %q", ready.Status, ready.Reason, ready.Message, status, reason, message)
	}
}

func TestDigests(t *testing.T) {
	t.Parallel()
	d := &digests{}
	f := newFixture(t, d, nil)
	rev, err := f.reconcile()
	if err != nil {
		t.Fatal(err)
	}
	f.check(rev, corev1.ConditionUnknown, servingv1.ReasonResolvingDigests, "")
	key := client.ObjectKey{Namespace: servingtest.Namespace, Name: name + "-deployment"}
	if err := f.Store.Get(t.Context(), key, &appsv1.Deployment{}); !apierrors.IsNotFound(err) {
		t.Errorf("a Deployment before the image is known: %v, want none", err)
	}

	d.err = errors.New("no such image, 100% sure")
	if rev, err = f.reconcile(); err != nil {
		t.Fatalf("%v, want no error: the resolver tries again by itself", err)
	}
	f.check(rev, corev1.ConditionFalse, servingv1.ReasonContainerMissing, d.err.Error())

	d.err, d.statuses = nil, []servingv1.ContainerStatus{{Name: "user-container", ImageDigest: "example.com/hello@sha256:0123"}}
	if rev, err = f.reconcile(); err != nil {
		t.Fatal(err)
	}
	f.check(rev, corev1.ConditionUnknown, servingv1.ReasonDeploying, "")
	if got, want := servingtest.Get[appsv1.Deployment](t, f.Cluster, key.Name).Spec.Template.Spec.Containers[0].Image, d.statuses[0].ImageDigest; got != want {
		t.Errorf("image is %q, want %q", got, want)
	}
	if _, err := f.reconcile(); err != nil || d.forgot == 0 {
		t.Errorf("%v, forgot %d times, want the resolver to be told that the digests are stored", err, d.forgot)
	}
}

// TestDeletedRevision wants nothing to be remembered of a revision that goes before its digests are stored.
func TestDeletedRevision(t *testing.T) {
	t.Parallel()
	d := &digests{}
	f := newFixture(t, d, nil)
	rev, err := f.reconcile()
	if err != nil || d.forgot != 0 {
		t.Fatalf("%v, forgot %d times before the digests are known", err, d.forgot)
	}
	if err := f.Store.Delete(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(rev)}
	if _, err := f.reconciler.Reconcile(t.Context(), request); err != nil || d.forgot != 1 {
		t.Errorf("%v, forgot %d times, want once", err, d.forgot)
	}
}

func TestRefusedDeployment(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil, func(live client.WithWatch) client.Client {
		return interceptor.NewClient(live, interceptor.Funcs{
			Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
				return apierrors.NewForbidden(appsv1.Resource("deployments"), name, errors.New("100% of the quota"))
			},
		})
	})
	rev, err := f.reconcile()
	if !apierrors.IsForbidden(err) {
		t.Errorf("error is %v, want that of the API server, to be tried again", err)
	}
	f.check(rev, corev1.ConditionFalse, "FailedCreate", `deployments.apps "hello-00001" is forbidden: 100% of the quota`)
}

// TestLiveAnnotations changes a scaling annotation of a revision, which takes effect without new pods.
func TestLiveAnnotations(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil, nil)
	if _, err := f.reconcile(); err != nil {
		t.Fatal(err)
	}
	before := servingtest.Get[appsv1.Deployment](t, f.Cluster, name+"-deployment").ResourceVersion
	servingtest.Change(t, f.Cluster, name, func(r *servingv1.Revision) {
		r.Annotations = map[string]string{"autoscaling.knative.dev/min-scale": "3"}
	})
	if _, err := f.reconcile(); err != nil {
		t.Fatal(err)
	}
	pa := servingtest.Get[autoscalingv1alpha1.PodAutoscaler](t, f.Cluster, name)
	if got := pa.Annotations["autoscaling.knative.dev/min-scale"]; got != "3" {
		t.Errorf("min-scale of the PodAutoscaler is %q, want 3", got)
	}
	if got := servingtest.Get[appsv1.Deployment](t, f.Cluster, name+"-deployment").ResourceVersion; got != before {
		t.Error("the Deployment was written for an annotation of the autoscaler")
	}
}
