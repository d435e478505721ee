package discovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weft-dev/weft/mesh/config"
)

// pod of revision hello-00001.
func newPod(name string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, Labels: map[string]string{"serving.knative.dev/revision": "hello-00001"},
	}}
	p.Spec.Containers = []corev1.Container{{Name: "user-container", Ports: []corev1.ContainerPort{{Name: "user-port", ContainerPort: 8080}}}}
	p.Status.PodIP = "10.207.0.5"
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if edit != nil {
		edit(p)
	}
	return p
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

func deleted(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }

func TestPodEndpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*corev1.Pod)
		want string
	}{
		{name: "ready", edit: nil, want: "10.207.0.5:8080"},
		{name: "not ready", edit: unready, want: "none"},
		{name: "no condition yet", edit: func(p *corev1.Pod) { p.Status.Conditions = nil }, want: "none"},
		{name: "no address", edit: func(p *corev1.Pod) { p.Status.PodIP = "" }, want: "none"},
		{name: "being deleted", edit: deleted, want: "10.207.0.5:8080 draining"},
		{name: "being deleted and not ready any more", edit: func(p *corev1.Pod) { deleted(p); unready(p) }, want: "10.207.0.5:8080 draining"},
		{name: "failed", edit: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, want: "none"},
		{name: "failed and being deleted", edit: func(p *corev1.Pod) { deleted(p); p.Status.Phase = corev1.PodFailed }, want: "none"},
		{
			name: "port of the serving container, though it comes second",
			edit: func(p *corev1.Pod) {
				p.Spec.Containers = append([]corev1.Container{{Name: "side", Ports: []corev1.ContainerPort{{ContainerPort: 1}}}}, p.Spec.Containers...)
			},
			want: "10.207.0.5:8080",
		},
		{name: "first port", edit: func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 3}, {ContainerPort: 4}}
		}, want: "10.207.0.5:3"},
		{name: "no port", edit: func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }, want: "10.207.0.5:8080"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := brief(PodEndpoint(newPod("p", tt.edit))); got != tt.want {
				t.Errorf("PodEndpoint = %s, want %s", got, tt.want)
			}
		})
	}
}

func brief(ep *config.Endpoint) string {
	if ep == nil {
		return "none"
	}
	text := fmt.Sprintf("%s:%d", ep.GetAddress(), ep.GetPort())
	if ep.GetDraining() {
		text += " draining"
	}
	return text
}

func newService(edit func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	svc.Spec.ClusterIP = "10.208.0.7"
	svc.Spec.ClusterIPs = []string{"10.208.0.7"}
	svc.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
	if edit != nil {
		edit(&svc.Spec)
	}
	return svc
}

func newSlice(name string, edit func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	if edit != nil {
		edit(s)
	}
	return s
}

func endpoint(address string, ready bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
}

func TestCompileService(t *testing.T) {
	t.Parallel()
	terminating := func(serving bool) discoveryv1.Endpoint {
		ep := endpoint("10.207.0.3", false)
		ep.Conditions.Serving, ep.Conditions.Terminating = &serving, new(true)
		return ep
	}
	tests := []struct {
		name    string
		service *corev1.Service
		slices  []*discoveryv1.EndpointSlice
		want    []string
	}{
		{
			name: "no slice", service: newService(nil), slices: nil,
			want: []string{
				`Service{name:"default/web" cluster_ips:"10.208.0.7" ports:{name:"http" port:80 backend:"service/default/web/80/tcp"}}`,
				`Backend{name:"service/default/web/80/tcp" protocol:TCP}`,
				`Endpoints{name:"service/default/web/80/tcp"}`,
			},
		},
		{
			name: "ready, not ready, terminating, and one endpoint in two slices",
			service: newService(func(s *corev1.ServiceSpec) {
				s.Ports = append(s.Ports, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP})
			}),
			slices: []*discoveryv1.EndpointSlice{
				newSlice("b", func(s *discoveryv1.EndpointSlice) {
					pod := endpoint("10.207.0.4", true)
					pod.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web-1"}
					s.Endpoints = []discoveryv1.Endpoint{pod, endpoint("10.207.0.2", false), terminating(true)}
					s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("dns"), Port: new(int32(5353)), Protocol: new(corev1.ProtocolUDP)})
				}),
				newSlice("a", func(s *discoveryv1.EndpointSlice) {
					s.Endpoints = []discoveryv1.Endpoint{endpoint("10.207.0.1", true), terminating(true)}
				}),
				newSlice("v6", func(s *discoveryv1.EndpointSlice) {
					s.AddressType = discoveryv1.AddressTypeIPv6
					s.Endpoints = []discoveryv1.Endpoint{endpoint("fd00::1", true)}
				}),
			},
			want: []string{
				`Service{name:"default/web" cluster_ips:"10.208.0.7" ports:{name:"http" port:80 backend:"service/default/web/80/tcp"} ` +
					`ports:{name:"dns" port:53 backend:"service/default/web/53/udp" udp:true}}`,
				`Backend{name:"service/default/web/80/tcp" protocol:TCP}`,
				`Endpoints{name:"service/default/web/80/tcp" endpoints:{address:"10.207.0.1" port:8080} ` +
					`endpoints:{address:"10.207.0.3" port:8080 draining:true} endpoints:{address:"10.207.0.4" port:8080 pod:"default/web-1"}}`,
				`Backend{name:"service/default/web/53/udp" protocol:UDP}`,
				`Endpoints{name:"service/default/web/53/udp" endpoints:{address:"10.207.0.3" port:5353 draining:true} ` +
					`endpoints:{address:"10.207.0.4" port:5353 pod:"default/web-1"}}`,
			},
		},
		{
			name: "terminating and not serving", service: newService(nil),
			slices: []*discoveryv1.EndpointSlice{newSlice("a", func(s *discoveryv1.EndpointSlice) { s.Endpoints = []discoveryv1.Endpoint{terminating(false)} })},
			want: []string{
				`Service{name:"default/web" cluster_ips:"10.208.0.7" ports:{name:"http" port:80 backend:"service/default/web/80/tcp"}}`,
				`Backend{name:"service/default/web/80/tcp" protocol:TCP}`,
				`Endpoints{name:"service/default/web/80/tcp"}`,
			},
		},
		{
			name: "headless",
			service: newService(func(s *corev1.ServiceSpec) {
				s.ClusterIP, s.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
			}),
			slices: []*discoveryv1.EndpointSlice{newSlice("a", func(s *discoveryv1.EndpointSlice) {
				named := endpoint("10.207.0.2", true)
				named.Hostname = new("web-0")
				s.Endpoints = []discoveryv1.Endpoint{named, endpoint("10.207.0.1", true), endpoint("10.207.0.3", false)}
			})},
			want: []string{
				`Service{name:"default/web" ports:{name:"http" port:8080} headless_addresses:{address:"10.207.0.1"} ` +
					`headless_addresses:{address:"10.207.0.2" hostname:"web-0"}}`,
			},
		},
		{
			name: "external name",
			service: newService(func(s *corev1.ServiceSpec) {
				s.Type, s.ExternalName, s.ClusterIP, s.ClusterIPs = corev1.ServiceTypeExternalName, "www.example.com", "", nil
			}),
			want: []string{`Service{name:"default/web" external_name:"www.example.com"}`},
		},
		{
			name: "address not given yet", service: newService(func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "", nil }),
			want: []string{`Service{name:"default/web"}`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, order := range []string{"as given", "reversed"} {
				if diff := cmp.Diff(tt.want, texts(CompileService(tt.service, tt.slices))); diff != "" {
					t.Errorf("slices %s (-want +got):\n%s", order, diff)
				}
				slices.Reverse(tt.slices)
			}
		})
	}
}

// texts writes each resource as Kind{fields}, in the form of Go's prototext without its random spaces.
func texts(resources []config.Resource) []string {
	var list []string
	for _, res := range resources {
		list = append(list, text(res))
	}
	return list
}

func text(res config.Resource) string {
	body, err := prototext.MarshalOptions{}.Marshal(res)
	if err != nil {
		return err.Error()
	}
	fields := strings.Join(strings.Fields(string(body)), " ")
	return string(res.ProtoReflect().Descriptor().Name()) + "{" + fields + "}"
}
