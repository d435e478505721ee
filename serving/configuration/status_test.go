package configuration

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// rev returns a revision of a generation; a name that ends in "+" is ready.
func rev(name string, generation int64) servingv1.Revision {
	r := servingv1.Revision{}
	r.Name = strings.TrimSuffix(name, "+")
	r.Labels = map[string]string{serving.ConfigurationGenerationLabelKey: strconv.FormatInt(generation, 10)}
	r.Status.InitializeConditions()
	if r.Name != name {
		r.Status.MarkResourcesAvailableTrue()
		r.Status.MarkContainerHealthyTrue()
	}
	return r
}

func TestLatestReady(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		generation int64
		present    string // latest ready so far
		named      string // in the template
		created    string
		revisions  []servingv1.Revision
		want       string
	}{
		{name: "none", generation: 1, created: "r1", revisions: []servingv1.Revision{rev("r1", 1)}},
		{name: "first", generation: 1, created: "r1", revisions: []servingv1.Revision{rev("r1+", 1)}, want: "r1"},
		{
			name: "next", generation: 2, present: "r1", created: "r2",
			revisions: []servingv1.Revision{rev("r1+", 1), rev("r2+", 2)}, want: "r2",
		},
		{
			name: "next is not ready", generation: 2, present: "r1", created: "r2",
			revisions: []servingv1.Revision{rev("r1+", 1), rev("r2", 2)}, want: "r1",
		},
		{
			name: "one in between is ready first", generation: 3, present: "r1", created: "r3",
			revisions: []servingv1.Revision{rev("r3", 3), rev("r1+", 1), rev("r2+", 2)}, want: "r2",
		},
		{
			name: "never backwards", generation: 2, present: "r2", created: "r2",
			revisions: []servingv1.Revision{rev("r1+", 1), rev("r2", 2)}, want: "",
		},
		{
			name: "the present one was deleted", generation: 3, present: "gone", created: "r3",
			revisions: []servingv1.Revision{rev("r1+", 1), rev("r2+", 2), rev("r3", 3)}, want: "r2",
		},
		{
			name: "rollback by name", generation: 3, present: "green", named: "blue", created: "blue",
			revisions: []servingv1.Revision{rev("blue+", 1), rev("green+", 2)}, want: "blue",
		},
		{
			name: "a damaged label", generation: 2, present: "r1", created: "r2",
			revisions: []servingv1.Revision{rev("r1+", 1), rev("r2+", 2), {ObjectMeta: metav1.ObjectMeta{Name: "x"}}}, want: "r2",
		},
		{
			name: "a revision from the future", generation: 1, present: "r1", created: "r1",
			revisions: []servingv1.Revision{rev("r1+", 1), rev("r7+", 7)}, want: "r1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &servingv1.Configuration{}
			c.Generation, c.Spec.Template.Name = tt.generation, tt.named
			c.Status.LatestReadyRevisionName = tt.present
			created := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Name: tt.created}}
			if got := latestReady(c, created, tt.revisions); got != tt.want {
				t.Errorf("latestReady = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRevision(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := &servingv1.Configuration{}
	c.Namespace, c.Name, c.UID, c.Generation = "default", "hello", "config-uid", 12
	c.Labels = map[string]string{serving.ServiceLabelKey: "hello", serving.ServiceUIDLabelKey: "service-uid", "not": "copied"}
	c.Annotations = map[string]string{
		serving.UpdaterAnnotation: "somebody", serving.CreatorAnnotation: "somebody else", serving.RoutesAnnotationKey: "hello",
	}
	c.Spec.Template.Labels = map[string]string{"team": "blue"}
	c.Spec.Template.Annotations = map[string]string{"note": "x"}
	before := c.DeepCopy()

	want := metav1.ObjectMeta{
		Namespace: "default", Name: "hello-00012",
		Labels: map[string]string{
			"team": "blue", serving.ConfigurationLabelKey: "hello", serving.ConfigurationUIDLabelKey: "config-uid",
			serving.ConfigurationGenerationLabelKey: "12", serving.ServiceLabelKey: "hello", serving.ServiceUIDLabelKey: "service-uid",
			serving.RoutingStateLabelKey: "active",
		},
		Annotations: map[string]string{
			"note": "x", serving.CreatorAnnotation: "somebody", serving.RoutesAnnotationKey: "hello",
			serving.RoutingStateModifiedAnnotationKey: "2026-01-02T03:04:05Z",
		},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "serving.knative.dev/v1", Kind: "Configuration", Name: "hello", UID: "config-uid",
			Controller: new(true), BlockOwnerDeletion: new(true),
		}},
	}
	if diff := cmp.Diff(want, Revision(c, now).ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, c); diff != "" {
		t.Errorf("the configuration was changed (-before +after):\n%s", diff)
	}

	delete(c.Annotations, serving.RoutesAnnotationKey)
	if got := Revision(c, now).GetRoutingState(); got != servingv1.RoutingStatePending {
		t.Errorf("routing state without a route is %q, want pending", got)
	}
}
