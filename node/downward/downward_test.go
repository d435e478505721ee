package downward

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func source() Source {
	return Source{
		Pod: &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"b": "2", "a": "1"}, Annotations: map[string]string{"q": `say "x"`},
			},
			Spec: v1.PodSpec{
				NodeName: "n", ServiceAccountName: "sa",
				InitContainers: []v1.Container{{Name: "init"}},
				Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{
					Limits:   v1.ResourceList{v1.ResourceCPU: resource.MustParse("1500m"), v1.ResourceMemory: resource.MustParse("65Mi")},
					Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m")},
				}}},
			},
		},
		PodIP: "10.0.0.2", HostIP: "10.0.0.1", CPUs: 4, MemoryBytes: 1 << 30,
	}
}

func TestField(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, path, want, wantErr string }{
		{name: "name", path: "metadata.name", want: "p"},
		{name: "labels", path: "metadata.labels", want: "a=\"1\"\nb=\"2\""},
		{name: "annotations are quoted", path: "metadata.annotations", want: `q="say \"x\""`},
		{name: "one label", path: "metadata.labels['a']", want: "1"},
		{name: "one that is missing", path: "metadata.labels['z']", want: ""},
		{name: "address", path: "status.podIPs", want: "10.0.0.2"},
		{name: "machine", path: "status.hostIP", want: "10.0.0.1"},
		{name: "unsupported", path: "spec.containers", wantErr: "unsupported fieldPath: spec.containers"},
		{name: "unsupported subscript", path: "metadata.name['a']", wantErr: `fieldPath "metadata.name['a']" does not support subscript`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := source().Field(tt.path)
			if message(err) != tt.wantErr || got != tt.want {
				t.Errorf("%q, %v, want %q, %q", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestResource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, container, resource, divisor, want, wantErr string }{
		{name: "processors are rounded up", container: "c", resource: "limits.cpu", divisor: "0", want: "2"},
		{name: "in thousandths", container: "c", resource: "limits.cpu", divisor: "1m", want: "1500"},
		{name: "request", container: "c", resource: "requests.cpu", divisor: "1m", want: "250"},
		{name: "memory in units", container: "c", resource: "limits.memory", divisor: "10Mi", want: "7"},
		{name: "without a limit it is the machine's", container: "init", resource: "limits.memory", divisor: "1Mi", want: "1024"},
		{name: "and all of its processors", container: "init", resource: "limits.cpu", divisor: "1", want: "4"},
		{name: "a missing request is zero", container: "init", resource: "requests.memory", divisor: "1", want: "0"},
		{name: "unknown container", container: "x", resource: "limits.cpu", divisor: "1", wantErr: "container x not found"},
		{name: "unknown resource", container: "c", resource: "limits.gpu", divisor: "1", wantErr: "unsupported container resource : limits.gpu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sel := &v1.ResourceFieldSelector{Resource: tt.resource, Divisor: resource.MustParse(tt.divisor)}
			got, err := source().Resource(sel, tt.container)
			if message(err) != tt.wantErr || got != tt.want {
				t.Errorf("%q, %v, want %q, %q", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
