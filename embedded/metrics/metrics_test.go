package metrics

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsapi "k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// figures is a Source of one node and three pods.
type figures struct{}

func usage(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse(cpu), corev1.ResourceMemory: apiresource.MustParse(memory)}
}

func (figures) NodeMetrics(context.Context) (*metricsapi.NodeMetrics, error) {
	return &metricsapi.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: map[string]string{"os": "linux"}},
		Window:     metav1.Duration{Duration: 2 * time.Second}, Usage: usage("1500m", "2Gi"),
	}, nil
}

func (figures) PodMetrics(_ context.Context, namespace string) ([]metricsapi.PodMetrics, error) {
	var out []metricsapi.PodMetrics
	for _, p := range []struct{ namespace, name, app string }{{"one", "a", "x"}, {"one", "b", "y"}, {"two", "a", "x"}} {
		if namespace == "" || namespace == p.namespace {
			out = append(out, metricsapi.PodMetrics{
				ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, Labels: map[string]string{"app": p.app}},
				Window:     metav1.Duration{Duration: 5*time.Second + time.Millisecond},
				Containers: []metricsapi.ContainerMetrics{
					{Name: "main", Usage: usage("20m", "30Mi")}, {Name: "side", Usage: usage("5500u", "10Mi")},
				},
			})
		}
	}
	return out, nil
}

// storage returns a resource of the group.
func storage(t *testing.T, name string, source func() Source) rest.Storage {
	t.Helper()
	s, ok := Group(source).VersionedResourcesStorageMap["v1beta1"][name]
	if !ok {
		t.Fatalf("no resource %s", name)
	}
	return s
}

func fromFigures() Source { return figures{} }

func TestListPods(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, namespace string
		options         *metainternalversion.ListOptions
		want            []string
	}{
		{name: "all", want: []string{"one/a", "one/b", "two/a"}},
		{name: "of a namespace", namespace: "one", want: []string{"one/a", "one/b"}},
		{
			name: "by label", options: &metainternalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"app": "x"})},
			want: []string{"one/a", "two/a"},
		},
		{
			name: "by field", options: &metainternalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "b")},
			want: []string{"one/b"},
		},
		{name: "of an empty namespace", namespace: "three", want: nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			object, err := storage(t, "pods", fromFigures).(rest.Lister).List(request.WithNamespace(t.Context(), tt.namespace), tt.options)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range object.(*metricsapi.PodMetricsList).Items {
				got = append(got, p.Namespace+"/"+p.Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("pods (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	ctx := request.WithNamespace(t.Context(), "one")
	for _, tt := range []struct {
		resource, name string
		found          bool
	}{{"pods", "b", true}, {"pods", "c", false}, {"nodes", "node", true}, {"nodes", "other", false}} {
		object, err := storage(t, tt.resource, fromFigures).(rest.Getter).Get(ctx, tt.name, nil)
		if tt.found != (err == nil) || (err != nil && !apierrors.IsNotFound(err)) {
			t.Errorf("%s %s: %v, %v", tt.resource, tt.name, object, err)
		}
	}
}

func TestWithoutSource(t *testing.T) {
	t.Parallel()
	none := func() Source { return nil }
	for _, name := range []string{"pods", "nodes"} {
		_, err := storage(t, name, none).(rest.Lister).List(t.Context(), nil)
		if seconds, ok := apierrors.SuggestsClientDelay(err); !apierrors.IsServiceUnavailable(err) || !ok || seconds != 1 {
			t.Errorf("%s: %v, want to be told to come back in a second", name, err)
		}
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		resource string
		want     []any
		rows     int
	}{
		{"nodes", []any{"node", "1500m", "2048Mi", "2s"}, 1},
		{"pods", []any{"a", "26m", "40Mi", "5s"}, 3},
	} {
		s := storage(t, tt.resource, fromFigures).(rest.Lister)
		list, err := s.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		table, err := s.ConvertToTable(t.Context(), list, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(table.Rows) != tt.rows || len(table.ColumnDefinitions) != len(tt.want) {
			t.Fatalf("%s: %d rows of %d columns", tt.resource, len(table.Rows), len(table.ColumnDefinitions))
		}
		if diff := cmp.Diff(tt.want, table.Rows[0].Cells); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.resource, diff)
		}
		if table, err := s.ConvertToTable(t.Context(), list, &metav1.TableOptions{NoHeaders: true}); err != nil || len(table.ColumnDefinitions) > 0 {
			t.Errorf("%s without headers: %v, %v", tt.resource, table, err)
		}
		if _, err := s.ConvertToTable(t.Context(), &corev1.Pod{}, nil); err == nil {
			t.Errorf("%s shows a Pod", tt.resource)
		}
	}
}

// TestWireFormat encodes as the API server does.
func TestWireFormat(t *testing.T) {
	t.Parallel()
	info := Group(fromFigures)
	object, err := storage(t, "pods", fromFigures).(rest.Getter).Get(request.WithNamespace(t.Context(), "one"), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, media := range info.NegotiatedSerializer.SupportedMediaTypes() {
		if media.MediaType != runtime.ContentTypeJSON && media.MediaType != runtime.ContentTypeProtobuf {
			continue
		}
		data, err := runtime.Encode(info.NegotiatedSerializer.EncoderForVersion(media.Serializer, v1beta1.SchemeGroupVersion), object)
		if err != nil {
			t.Fatal(err)
		}
		var got v1beta1.PodMetrics
		if _, _, err := media.Serializer.Decode(data, nil, &got); err != nil {
			t.Fatal(err)
		}
		if media.MediaType == runtime.ContentTypeJSON && (got.APIVersion != "metrics.k8s.io/v1beta1" || got.Kind != "PodMetrics") {
			t.Errorf("%s: type %v", media.MediaType, got.TypeMeta)
		}
		if got.Name != "a" || len(got.Containers) != 2 || got.Containers[0].Usage.Cpu().String() != "20m" {
			t.Errorf("%s: %+v", media.MediaType, got)
		}
	}
}
