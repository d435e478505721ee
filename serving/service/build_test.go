package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func example() *servingv1.Service {
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "hello", UID: "service-uid", Labels: map[string]string{"team": "blue"},
		Annotations: map[string]string{
			serving.CreatorAnnotation: "somebody", corev1.LastAppliedConfigAnnotation: "{}", serving.RolloutDurationKey: "60s",
		},
	}}
	s.Spec.Template.Spec.Containers = []corev1.Container{{Image: "example.com/hello"}}
	s.Spec.Traffic = []servingv1.TrafficTarget{{LatestRevision: new(true), Percent: new(int64(90))}, {RevisionName: "hello-00001", Percent: new(int64(10))}}
	return s
}

func owners() []metav1.OwnerReference {
	return []metav1.OwnerReference{{
		APIVersion: "serving.knative.dev/v1", Kind: "Service", Name: "hello", UID: "service-uid",
		Controller: new(true), BlockOwnerDeletion: new(true),
	}}
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	s := example()
	existing := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{serving.RoutesAnnotationKey: "another"}}}
	want := &servingv1.Configuration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "hello", OwnerReferences: owners(),
			Labels:      map[string]string{"team": "blue", serving.ServiceLabelKey: "hello", serving.ServiceUIDLabelKey: "service-uid"},
			Annotations: map[string]string{serving.CreatorAnnotation: "somebody", serving.RoutesAnnotationKey: "another,hello"},
		},
		Spec: s.Spec.ConfigurationSpec,
	}
	if diff := cmp.Diff(want, Configuration(s, existing)); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	s := example()
	before := s.DeepCopy()
	want := &servingv1.Route{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "hello", OwnerReferences: owners(),
			Labels:      map[string]string{"team": "blue", serving.ServiceLabelKey: "hello"},
			Annotations: map[string]string{serving.CreatorAnnotation: "somebody", serving.RolloutDurationKey: "60s"},
		},
		Spec: servingv1.RouteSpec{Traffic: []servingv1.TrafficTarget{
			{ConfigurationName: "hello", LatestRevision: new(true), Percent: new(int64(90))},
			{RevisionName: "hello-00001", Percent: new(int64(10))},
		}},
	}
	if diff := cmp.Diff(want, Route(s)); diff != "" {
		t.Errorf("route (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, s); diff != "" {
		t.Errorf("the Service was changed (-before +after):\n%s", diff)
	}
}

func TestMigrated(t *testing.T) {
	t.Parallel()
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello"}}
	c.Status.LatestReadyRevisionName = "hello-00002"
	target := func(revision string, percent int64) servingv1.TrafficTarget {
		return servingv1.TrafficTarget{RevisionName: revision, Percent: &percent}
	}
	tests := []struct {
		name string
		// spec is that of the example when it is empty.
		spec   []servingv1.TrafficTarget
		status []servingv1.TrafficTarget
		want   bool
	}{
		{name: "as asked", status: []servingv1.TrafficTarget{target("hello-00002", 90), target("hello-00001", 10)}, want: true},
		{name: "an older revision", status: []servingv1.TrafficTarget{target("hello-00001", 90), target("hello-00001", 10)}},
		{name: "another share", status: []servingv1.TrafficTarget{target("hello-00002", 80), target("hello-00001", 20)}},
		{name: "nothing yet"},
		{
			name: "equal targets are one in the status", spec: []servingv1.TrafficTarget{target("hello-00001", 50), target("hello-00001", 50)},
			status: []servingv1.TrafficTarget{target("hello-00001", 100)}, want: true,
		},
		{
			name: "no percent is none", spec: []servingv1.TrafficTarget{target("hello-00002", 100), {RevisionName: "hello-00001", Tag: "old"}},
			status: []servingv1.TrafficTarget{target("hello-00002", 100), {RevisionName: "hello-00001", Tag: "old", Percent: new(int64(0))}}, want: true,
		},
		{
			name: "another tag", spec: []servingv1.TrafficTarget{{RevisionName: "hello-00001", Tag: "new", Percent: new(int64(100))}},
			status: []servingv1.TrafficTarget{{RevisionName: "hello-00001", Tag: "old", Percent: new(int64(100))}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := Route(example())
			if tt.spec != nil {
				r.Spec.Traffic = tt.spec
			}
			r.Status.Traffic = tt.status
			if got := migrated(r, c); got != tt.want {
				t.Errorf("migrated = %v, want %v", got, tt.want)
			}
		})
	}
}
