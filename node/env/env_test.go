package env

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-dev/weft/node/downward"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"A": "1", "EMPTY": "", "NEST": "$(A)"}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	for _, tt := range []struct{ name, in, want string }{
		{name: "plain", in: "text", want: "text"},
		{name: "variable", in: "a$(A)b", want: "a1b"},
		{name: "two", in: "$(A)$(A)", want: "11"},
		{name: "empty value", in: "[$(EMPTY)]", want: "[]"},
		{name: "unknown stays", in: "$(B)", want: "$(B)"},
		{name: "escaped", in: "$$(A)", want: "$(A)"},
		{name: "escaped twice", in: "$$$(A)", want: "$1"},
		{name: "not nested", in: "$(NEST)", want: "$(A)"},
		{name: "open", in: "$(A", want: "$(A"},
		{name: "shell style stays", in: "${A} $A", want: "${A} $A"},
		{name: "at the end", in: "cost: 5$", want: "cost: 5$"},
		{name: "empty name", in: "$()", want: "$()"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Expand(tt.in, lookup); got != tt.want {
				t.Errorf("Expand(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// objects has config maps and secrets by name.
type objects struct {
	configMaps map[string]map[string]string
	secrets    map[string]map[string]string
}

func (o objects) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if data, ok := o.configMaps[name]; ok {
		return &v1.ConfigMap{Data: data}, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("configmaps"), name)
}

func (o objects) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	data, ok := o.secrets[name]
	if !ok {
		return nil, apierrors.NewNotFound(v1.Resource("secrets"), name)
	}
	s := &v1.Secret{Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s, nil
}

func ref(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

func TestMake(t *testing.T) {
	t.Parallel()
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"app": "x"}, Annotations: map[string]string{"Example.com/A": "y"},
		},
		Spec: v1.PodSpec{NodeName: "n", ServiceAccountName: "sa", Containers: []v1.Container{{
			Name:      "c",
			Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}},
		}}},
	}
	all := objects{
		configMaps: map[string]map[string]string{"cm": {"K": "from-cm", "OTHER": "o"}},
		secrets:    map[string]map[string]string{"s": {"P": "secret"}},
	}
	field := func(name, path string) v1.EnvVar {
		return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	size := func(name, res, divisor string) v1.EnvVar {
		return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{
			Resource: res, Divisor: resource.MustParse(divisor),
		}}}
	}
	key := func(name, cm, key string, optional *bool) v1.EnvVar {
		return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{
			ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref(cm), Key: key, Optional: optional},
		}}
	}
	secret := func(name, s, key string, optional *bool) v1.EnvVar {
		return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{
			SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref(s), Key: key, Optional: optional},
		}}
	}
	for _, tt := range []struct {
		name     string
		env      []v1.EnvVar
		from     []v1.EnvFromSource
		services map[string]string
		want     []string
		wantErr  string
	}{
		{name: "values refer to earlier ones", env: []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)"}, {Name: "C", Value: "3"}}, want: []string{"A=1", "B=1$(C)", "C=3"}},
		{name: "the later wins", env: []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}, want: []string{"A=2"}},
		{name: "fields", env: []v1.EnvVar{
			field("NAME", "metadata.name"), field("NS", "metadata.namespace"), field("UID", "metadata.uid"), field("IP", "status.podIP"),
			field("HOST", "status.hostIP"), field("NODE", "spec.nodeName"), field("SA", "spec.serviceAccountName"),
			field("L", "metadata.labels['app']"), field("AN", "metadata.annotations['example.com/a']"),
		}, want: []string{"AN=", "HOST=10.0.0.1", "IP=10.0.0.2", "L=x", "NAME=p", "NODE=n", "NS=ns", "SA=sa", "UID=u"}},
		{name: "unsupported field", env: []v1.EnvVar{field("X", "spec.hostname")}, wantErr: "unsupported fieldPath: spec.hostname"},
		{name: "resources", env: []v1.EnvVar{
			size("M", "limits.memory", "1Mi"), size("CPU", "limits.cpu", "1m"), size("REQ", "requests.cpu", "0"),
		}, want: []string{"CPU=2000", "M=64", "REQ=0"}},
		{name: "keys", env: []v1.EnvVar{key("K", "cm", "K", nil), secret("P", "s", "P", nil)}, want: []string{"K=from-cm", "P=secret"}},
		{name: "missing key", env: []v1.EnvVar{key("K", "cm", "no", nil)}, wantErr: "couldn't find key no in ConfigMap ns/cm"},
		{name: "missing secret key", env: []v1.EnvVar{secret("K", "s", "no", nil)}, wantErr: "couldn't find key no in Secret ns/s"},
		{name: "missing map", env: []v1.EnvVar{key("K", "no", "K", nil)}, wantErr: `configmaps "no" not found`},
		{name: "optional", env: []v1.EnvVar{key("K", "no", "K", new(true)), key("L", "cm", "no", new(true)), secret("S", "no", "K", new(true))}, want: []string{}},
		{name: "all keys", from: []v1.EnvFromSource{
			{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}},
			{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("s")}},
		}, env: []v1.EnvVar{{Name: "P_K", Value: "own"}}, want: []string{"P=secret", "P_K=own", "P_OTHER=o"}},
		{name: "all keys of a missing one", from: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("no")}}}, wantErr: `secrets "no" not found`},
		{name: "services", services: map[string]string{"X_PORT": "1", "A": "service"}, env: []v1.EnvVar{{Name: "A", Value: "own"}, {Name: "B", Value: "$(X_PORT)"}}, want: []string{"A=own", "B=1", "X_PORT=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Make(t.Context(), &v1.Container{Name: "c", Env: tt.env, EnvFrom: tt.from}, Options{
				Source:  downward.Source{Pod: pod, PodIP: "10.0.0.2", HostIP: "10.0.0.1", CPUs: 2, MemoryBytes: 1 << 30},
				Objects: all, Services: tt.services,
			})
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	service := func(namespace, name, ip string, ports ...v1.ServicePort) *v1.Service {
		return &v1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: ports},
		}
	}
	list := []*v1.Service{
		service("default", "kubernetes", "10.0.0.1", v1.ServicePort{Name: "https", Port: 443}),
		service("ns", "my-db", "10.0.0.9", v1.ServicePort{Port: 5432}, v1.ServicePort{Name: "dns-udp", Port: 53, Protocol: v1.ProtocolUDP}),
		service("ns", "headless", v1.ClusterIPNone, v1.ServicePort{Port: 1}),
		service("other", "far", "10.0.0.8", v1.ServicePort{Port: 1}),
	}
	kubernetes := []string{
		"KUBERNETES_PORT=tcp://10.0.0.1:443", "KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443", "KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1",
		"KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_SERVICE_HOST=10.0.0.1",
		"KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443",
	}
	db := []string{
		"MY_DB_PORT=tcp://10.0.0.9:5432", "MY_DB_PORT_53_UDP=udp://10.0.0.9:53", "MY_DB_PORT_53_UDP_ADDR=10.0.0.9",
		"MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_PROTO=udp", "MY_DB_PORT_5432_TCP=tcp://10.0.0.9:5432",
		"MY_DB_PORT_5432_TCP_ADDR=10.0.0.9", "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_PROTO=tcp",
		"MY_DB_SERVICE_HOST=10.0.0.9", "MY_DB_SERVICE_PORT=5432", "MY_DB_SERVICE_PORT_DNS_UDP=53",
	}
	for _, tt := range []struct {
		name  string
		links bool
		want  []string
	}{
		{name: "without links", want: kubernetes},
		{name: "with links", links: true, want: slices.Concat(kubernetes, db)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Services(list, "ns", tt.links)
			var lines []string
			for _, k := range slices.Sorted(maps.Keys(got)) {
				lines = append(lines, k+"="+got[k])
			}
			want := slices.Clone(tt.want)
			slices.Sort(want)
			slices.Sort(lines)
			if diff := cmp.Diff(want, lines); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
		})
	}
}
