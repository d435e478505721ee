// Package servingtest is an API server in memory for the tests of the serving reconcilers: it gives objects a UID, counts
// their generation, keeps their status apart, answers by the indexes of the reconcilers and remembers Events. Only tests
// import it.
package servingtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/weft-dev/weft/serving/owned"
)

// Namespace is where the test objects are.
const Namespace = "default"

// Indexes adds the indexes of a reconciler.
type Indexes func(context.Context, client.FieldIndexer) error

// Cluster is an API server in memory.
type Cluster struct {
	// Store is what the reconcilers under test get.
	Store owned.Store

	// mu guards the rest.
	mu     sync.Mutex
	told   []string
	writes int
	uids   int
}

// New returns a cluster that holds objects, which are stored as they are.
func New(t *testing.T, indexes []Indexes, objects ...client.Object) *Cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, servingv1.AddToScheme, servingv1beta1.AddToScheme, autoscalingv1alpha1.AddToScheme,
		netv1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := &Cluster{}
	b := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(c.interceptor()).
		WithStatusSubresource(&servingv1.Service{}, &servingv1.Configuration{}, &servingv1.Revision{}, &servingv1.Route{},
			&servingv1beta1.DomainMapping{}, &autoscalingv1alpha1.PodAutoscaler{}, &appsv1.Deployment{}, &corev1.Pod{})
	for _, add := range indexes {
		if err := add(t.Context(), indexer{b}); err != nil {
			t.Fatal(err)
		}
	}
	cl := b.Build()
	c.Store = owned.Store{Client: cl, Live: cl, Events: recorder{c}}
	return c
}

// Events returns the Events so far, each as "<type> <reason> <note>".
func (c *Cluster) Events() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.told...)
}

// Writes returns the number of writes so far.
func (c *Cluster) Writes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// Get reads an object of Namespace, and fails the test when there is none.
func Get[T any, P interface {
	*T
	client.Object
}](t *testing.T, c *Cluster, name string) P {
	t.Helper()
	o := P(new(T))
	if err := c.Store.Get(t.Context(), client.ObjectKey{Namespace: Namespace, Name: name}, o); err != nil {
		t.Fatalf("reading %T %q: %v", o, name, err)
	}
	return o
}

// Change updates an object of Namespace, its spec and its metadata.
func Change[T any, P interface {
	*T
	client.Object
}](t *testing.T, c *Cluster, name string, change func(P)) {
	t.Helper()
	o := Get[T, P](t, c, name)
	change(o)
	if err := c.Store.Update(t.Context(), o); err != nil {
		t.Fatalf("updating %T %q: %v", o, name, err)
	}
}

// Report updates the status of an object of Namespace.
func Report[T any, P interface {
	*T
	client.Object
}](t *testing.T, c *Cluster, name string, change func(P)) {
	t.Helper()
	o := Get[T, P](t, c, name)
	change(o)
	if err := c.Store.Status().Update(t.Context(), o); err != nil {
		t.Fatalf("updating status of %T %q: %v", o, name, err)
	}
}

// interceptor does what an API server does and the fake client does not.
func (c *Cluster) interceptor() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			c.mu.Lock()
			c.uids++
			c.writes++
			o.SetUID(types.UID(fmt.Sprintf("uid-%d", c.uids)))
			c.mu.Unlock()
			o.SetGeneration(1)
			o.SetCreationTimestamp(metav1.Now())
			return cl.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			c.wrote()
			old := o.DeepCopyObject().(client.Object)
			if err := cl.Get(ctx, client.ObjectKeyFromObject(o), old); err != nil {
				return err
			}
			if !equality.Semantic.DeepEqual(spec(old), spec(o)) {
				o.SetGeneration(old.GetGeneration() + 1)
			}
			return cl.Update(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, cl client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			c.wrote()
			return cl.Patch(ctx, o, patch, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, cl client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			c.wrote()
			return cl.SubResource(sub).Update(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			c.wrote()
			return cl.Delete(ctx, o, opts...)
		},
	}
}

func (c *Cluster) wrote() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
}

// spec is what counts for the generation.
func spec(o client.Object) any {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		panic(err) // a type of the scheme always converts
	}
	return fields["spec"]
}

// indexer adds indexes to a fake client.
type indexer struct{ builder *fake.ClientBuilder }

// IndexField implements client.FieldIndexer.
func (i indexer) IndexField(_ context.Context, o client.Object, field string, extract client.IndexerFunc) error {
	i.builder.WithIndex(o, field, extract)
	return nil
}

// recorder remembers Events.
type recorder struct{ cluster *Cluster }

var _ events.EventRecorder = recorder{}

// Eventf implements events.EventRecorder.
func (r recorder) Eventf(_, _ runtime.Object, kind, reason, _, note string, args ...any) {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	r.cluster.told = append(r.cluster.told, strings.Join([]string{kind, reason, fmt.Sprintf(note, args...)}, " "))
}
