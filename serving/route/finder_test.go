package route

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/servingtest"
)

func named(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: name, Labels: labels}
}

// sorted returns the distinct names of requests.
func sorted(requests []reconcile.Request) []string {
	var out []string
	for _, r := range requests {
		out = append(out, r.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestFinder(t *testing.T) {
	t.Parallel()
	follows := &servingv1.Route{ObjectMeta: named("follows", nil)}
	follows.Spec.Traffic = []servingv1.TrafficTarget{latest("a", 100, "")}
	pins := &servingv1.Route{ObjectMeta: named("pins", nil)}
	pins.Spec.Traffic = []servingv1.TrafficTarget{pinned("a-1", 100, "")}
	elsewhere := follows.DeepCopy()
	elsewhere.Namespace = "elsewhere"
	waits := &servingv1.Route{ObjectMeta: named("waits", nil)}
	waits.Status.InitializeConditions()
	waits.Status.MarkServiceNotOwned("next-waits")
	find := Finder{servingtest.New(t, []servingtest.Indexes{AddIndexes}, follows, pins, elsewhere, waits).Store}

	ofA := map[string]string{serving.ConfigurationLabelKey: "a"}
	tests := []struct {
		name string
		find func(client.Object) []reconcile.Request
		of   client.Object
		want []string
	}{
		{name: "configuration", find: mapOf(find.OfConfiguration), of: &servingv1.Configuration{ObjectMeta: named("a", nil)}, want: []string{"follows"}},
		{name: "another configuration", find: mapOf(find.OfConfiguration), of: &servingv1.Configuration{ObjectMeta: named("b", nil)}},
		{name: "pinned revision", find: mapOf(find.OfRevision), of: &servingv1.Revision{ObjectMeta: named("a-1", ofA)}, want: []string{"follows", "pins"}},
		{name: "another revision", find: mapOf(find.OfRevision), of: &servingv1.Revision{ObjectMeta: named("a-2", ofA)}, want: []string{"follows"}},
		{
			name: "placeholder", find: mapOf(find.OfService),
			of:   &corev1.Service{ObjectMeta: named("next-hello", map[string]string{serving.RouteLabelKey: "hello"})},
			want: []string{"hello", "next-hello", "waits"},
		},
		{
			name: "placeholder without its label", find: mapOf(find.OfService), of: ownedBy("Route", "hello", named("next-hello", nil)),
			want: []string{"hello", "next-hello", "waits"},
		},
		{name: "foreign Service", find: mapOf(find.OfService), of: ownedBy("Deployment", "other", named("hello", nil)), want: []string{"hello", "waits"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := sorted(tt.find(tt.of)); !slices.Equal(got, tt.want) {
				t.Errorf("routes are %q, want %q", got, tt.want)
			}
		})
	}
}

func ownedBy(kind, name string, meta metav1.ObjectMeta) *corev1.Service {
	meta.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: new(true)}}
	return &corev1.Service{ObjectMeta: meta}
}

// mapOf drops the context, which these maps do not use.
func mapOf(f func(context.Context, client.Object) []reconcile.Request) func(client.Object) []reconcile.Request {
	return func(o client.Object) []reconcile.Request { return f(context.Background(), o) }
}
