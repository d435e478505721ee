package server

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"

	"github.com/weft-dev/weft/config"
)

// TestOwnManifests keeps the manifests in config/ applicable: each has a kind that apply knows, and none comes twice.
func TestOwnManifests(t *testing.T) {
	t.Parallel()
	objects, err := readManifests(config.Core, config.CRDs)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range objects {
		name := o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
		if seen[name] {
			t.Errorf("%s comes twice", name)
		}
		seen[name] = true
		if _, ok := resources()[o.GetKind()]; !ok {
			t.Errorf("%s: apply does not know the kind", name)
		}
	}
	for _, want := range []string{
		"Namespace//knative-serving", "Namespace//weft-system", "ConfigMap/knative-serving/config-autoscaler",
		"CustomResourceDefinition//services.serving.knative.dev", "CustomResourceDefinition//podautoscalers.autoscaling.internal.knative.dev",
	} {
		if !seen[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

// TestCreateMissing creates what is not there and leaves alone what is.
func TestCreateMissing(t *testing.T) {
	t.Parallel()
	object := func(name, value string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "knative-serving"},
			"data": map[string]any{"key": value},
		}}
	}
	client := fake.NewSimpleDynamicClient(runtime.NewScheme(), object("edited", "by the administrator"))
	for _, name := range []string{"edited", "missing"} {
		if err := createMissing(t.Context(), client, object(name, "shipped")); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"edited": "by the administrator", "missing": "shipped"} {
		found, err := client.Resource(resources()[configMap]).Namespace("knative-serving").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := unstructured.NestedString(found.Object, "data", "key"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestReadManifests(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		files   fstest.MapFS
		want    []string
		wantErr bool
	}{
		{
			name:  "several documents, comments and empty ones",
			files: fstest.MapFS{"core/a.yaml": {Data: []byte("# comment\nkind: A\n---\n---\nkind: B\n")}, "core/b.yaml": {Data: []byte("kind: C\n")}},
			want:  []string{"A", "B", "C"},
		},
		{name: "not YAML", files: fstest.MapFS{"a.yaml": {Data: []byte("kind: [")}}, wantErr: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			objects, err := readManifests(test.files)
			if (err != nil) != test.wantErr {
				t.Fatalf("error %v, want one: %t", err, test.wantErr)
			}
			var kinds []string
			for _, o := range objects {
				kinds = append(kinds, o.GetKind())
			}
			if diff := cmp.Diff(test.want, kinds); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEstablished(t *testing.T) {
	t.Parallel()
	condition := func(kind, status string) map[string]any {
		return map[string]any{"status": map[string]any{"conditions": []any{map[string]any{"type": kind, "status": status}}}}
	}
	tests := []struct {
		name   string
		object map[string]any
		want   bool
	}{
		{name: "new", object: map[string]any{}},
		{name: "only named", object: condition("NamesAccepted", "True")},
		{name: "not yet", object: condition("Established", "False")},
		{name: "established", object: condition("Established", "True"), want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := established(&unstructured.Unstructured{Object: test.object}); got != test.want {
				t.Errorf("established: %t, want %t", got, test.want)
			}
		})
	}
}
