package configuration

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/servingtest"
)

// TestConcerned wants a configuration to hear of its own revisions, and of a foreign one that has the name it wants.
func TestConcerned(t *testing.T) {
	t.Parallel()
	meta := func(name string, generation int64) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: name, Generation: generation}
	}
	named := &servingv1.Configuration{ObjectMeta: meta("named", 1)}
	named.Spec.Template.Name = "named-blue"
	c := servingtest.New(t, []servingtest.Indexes{AddIndexes}, named, &servingv1.Configuration{ObjectMeta: meta("plain", 3)})
	r := New(c.Store, time.Now)
	tests := []struct {
		name, revision, owner string
		want                  []string
	}{
		{name: "its own", revision: "plain-00001", owner: "plain", want: []string{"plain"}},
		{name: "its own and wanted", revision: "plain-00003", owner: "plain", want: []string{"plain"}},
		{name: "foreign with the wanted name", revision: "named-blue", owner: "other", want: []string{"other", "named"}},
		{name: "nobody's with the wanted name", revision: "plain-00003", want: []string{"plain"}},
		{name: "nobody's", revision: "stray"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rev := &servingv1.Revision{ObjectMeta: meta(tt.revision, 1)}
			if tt.owner != "" {
				rev.Labels = map[string]string{serving.ConfigurationLabelKey: tt.owner}
			}
			var got []string
			for _, request := range r.concerned(t.Context(), rev) {
				got = append(got, request.Name)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("concerned are %q, want %q", got, tt.want)
			}
		})
	}
}
