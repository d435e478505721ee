package knative

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/mesh/config"
)

func parseURL(t *testing.T, s string) *apis.URL {
	t.Helper()
	if s == "" {
		return nil
	}
	u, err := apis.ParseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// target of a Route's status: revision, percent (negative for none), tag and the tag's url.
type target struct {
	revision string
	percent  int64
	tag, url string
}

func routeWith(t *testing.T, name, url string, targets ...target) *servingv1.Route {
	t.Helper()
	r := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	r.Status.URL = parseURL(t, url)
	for _, tt := range targets {
		traffic := servingv1.TrafficTarget{RevisionName: tt.revision, Tag: tt.tag, URL: parseURL(t, tt.url)}
		if tt.percent >= 0 {
			traffic.Percent = new(tt.percent)
		}
		r.Status.Traffic = append(r.Status.Traffic, traffic)
	}
	return r
}

func TestCompile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		route  func(*testing.T) *servingv1.Route
		policy Policy
		want   string
	}{
		{
			name: "status not filled",
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				return routeWith(t, "hello", "")
			},
			want: `name: "knative/default/hello"`,
		},
		{
			name: "one revision, port and case in the url",
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				return routeWith(t, "hello", "http://Hello.default.localhost:8080", target{revision: "hello-00001", percent: 100})
			},
			want: `
				name: "knative/default/hello"
				virtual_hosts {
					hosts: "hello.default.localhost"
					rules { splits { backend: "revision/default/hello-00001" weight: 100 } }
				}
				virtual_hosts {
					hosts: "hello.default" hosts: "hello.default.svc" hosts: "hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules { splits { backend: "revision/default/hello-00001" weight: 100 } }
				}`,
		},
		{
			name: "cluster-local",
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				return routeWith(t, "hello", "http://hello.default.svc.cluster.local", target{revision: "hello-00001", percent: 100})
			},
			want: `
				name: "knative/default/hello"
				virtual_hosts {
					hosts: "hello.default" hosts: "hello.default.svc" hosts: "hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules { splits { backend: "revision/default/hello-00001" weight: 100 } }
				}`,
		},
		{
			name: "split, the same revision twice, a tag without traffic",
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				return routeWith(t, "hello", "http://hello.default.localhost",
					target{revision: "hello-00001", percent: 20},
					target{revision: "hello-00002", percent: 70},
					target{revision: "hello-00001", percent: 10, tag: "old", url: "http://old-hello.default.localhost"},
					target{revision: "hello-00003", percent: 0, tag: "next", url: "http://next-hello.default.svc.cluster.local"},
					target{revision: "hello-00004", percent: -1})
			},
			want: `
				name: "knative/default/hello"
				virtual_hosts {
					hosts: "hello.default.localhost"
					rules {
						splits { backend: "revision/default/hello-00001" weight: 30 }
						splits { backend: "revision/default/hello-00002" weight: 70 }
					}
				}
				virtual_hosts {
					hosts: "hello.default" hosts: "hello.default.svc" hosts: "hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules {
						splits { backend: "revision/default/hello-00001" weight: 30 }
						splits { backend: "revision/default/hello-00002" weight: 70 }
					}
				}
				virtual_hosts {
					hosts: "old-hello.default.localhost"
					rules { splits { backend: "revision/default/hello-00001" weight: 100 } }
				}
				virtual_hosts {
					hosts: "old-hello.default" hosts: "old-hello.default.svc" hosts: "old-hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules { splits { backend: "revision/default/hello-00001" weight: 100 } }
				}
				virtual_hosts {
					hosts: "next-hello.default" hosts: "next-hello.default.svc" hosts: "next-hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules { splits { backend: "revision/default/hello-00003" weight: 100 } }
				}`,
		},
		{
			name: "rollout of the host of a tag",
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				r := routeWith(t, "hello", "",
					target{revision: "r2", percent: 100},
					target{revision: "r1", percent: 0, tag: "next", url: "http://next-hello.example.com"},
					target{revision: "r2", percent: 0, tag: "next", url: "http://next-hello.example.com"})
				r.Status.Annotations = map[string]string{
					"networking.internal.knative.dev/rollout": `{"tags":{"next":{"start":"2026-01-02T03:04:05Z","size":11,
						"revisions":[{"revisionName":"r1","percent":88},{"revisionName":"r2","percent":12}]}}}`,
				}
				return r
			},
			want: `
				name: "knative/default/hello"
				virtual_hosts {
					hosts: "hello.default" hosts: "hello.default.svc" hosts: "hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules { splits { backend: "revision/default/r2" weight: 100 } }
				}
				virtual_hosts {
					hosts: "next-hello.example.com"
					rules {
						splits { backend: "revision/default/r1" weight: 88 }
						splits { backend: "revision/default/r2" weight: 12 }
					}
				}
				virtual_hosts {
					hosts: "next-hello.default" hosts: "next-hello.default.svc" hosts: "next-hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules {
						splits { backend: "revision/default/r1" weight: 88 }
						splits { backend: "revision/default/r2" weight: 12 }
					}
				}`,
		},
		{
			name: "a tag whose rollout was lost is at the newest revision",
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				r := routeWith(t, "hello", "",
					target{revision: "r1", percent: 0, tag: "next", url: "http://next-hello.default.svc.cluster.local"},
					target{revision: "r2", percent: 0, tag: "next", url: "http://next-hello.default.svc.cluster.local"})
				r.Status.Annotations = map[string]string{"networking.internal.knative.dev/rollout": "broken"}
				return r
			},
			want: `
				name: "knative/default/hello"
				virtual_hosts {
					hosts: "next-hello.default" hosts: "next-hello.default.svc" hosts: "next-hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules { splits { backend: "revision/default/r2" weight: 100 } }
				}`,
		},
		{
			name:   "tags by header, and plain HTTP redirected",
			policy: Policy{TagHeaders: true, RedirectHTTP: true, HTTPSPort: 8443},
			route: func(t *testing.T) *servingv1.Route {
				t.Helper()
				return routeWith(t, "hello", "http://hello.example.com",
					target{revision: "r2", percent: 100},
					target{revision: "r1", percent: 0, tag: "old", url: "http://old-hello.default.svc.cluster.local"})
			},
			want: `
				name: "knative/default/hello"
				virtual_hosts {
					hosts: "hello.example.com" https_redirect_port: 8443
					rules {
						match { headers { name: "Knative-Serving-Tag" value: "old" } }
						splits { backend: "revision/default/r1" weight: 100 }
					}
					rules {
						splits { backend: "revision/default/r2" weight: 100 }
						set_headers { name: "Knative-Serving-Default-Route" value: "true" }
					}
				}
				virtual_hosts {
					hosts: "hello.default" hosts: "hello.default.svc" hosts: "hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules {
						match { headers { name: "Knative-Serving-Tag" value: "old" } }
						splits { backend: "revision/default/r1" weight: 100 }
					}
					rules {
						splits { backend: "revision/default/r2" weight: 100 }
						set_headers { name: "Knative-Serving-Default-Route" value: "true" }
					}
				}
				virtual_hosts {
					hosts: "old-hello.default" hosts: "old-hello.default.svc" hosts: "old-hello.default.svc.cluster.local"
					visibility: CLUSTER_LOCAL
					rules {
						splits { backend: "revision/default/r1" weight: 100 }
						set_headers { name: "Knative-Serving-Tag" value: "old" }
					}
				}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := &config.Route{}
			if err := prototext.Unmarshal([]byte(tt.want), want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, Compile(tt.route(t), Naming{}, tt.policy), protocmp.Transform()); diff != "" {
				t.Errorf("Compile (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEveryIngressClassIsServed: existing YAML names the classes of istio, kourier and others, whose controllers have nothing to serve here.
func TestEveryIngressClassIsServed(t *testing.T) {
	t.Parallel()
	r := routeWith(t, "hello", "http://hello.default.localhost", target{revision: "hello-00001", percent: 100})
	want := Compile(r, Naming{}, Policy{})
	if len(want.GetVirtualHosts()) != 2 {
		t.Fatalf("without a class: %v", want)
	}
	for _, key := range []string{"networking.knative.dev/ingress-class", "networking.knative.dev/ingress.class"} {
		r.Annotations = map[string]string{key: "kourier.ingress.networking.knative.dev"}
		if diff := cmp.Diff(want, Compile(r, Naming{}, Policy{}), protocmp.Transform()); diff != "" {
			t.Errorf("with %s (-want +got):\n%s", key, diff)
		}
	}
}

func TestCompileUsesTheNamingOfTags(t *testing.T) {
	t.Parallel()
	r := routeWith(t, "hello", "", target{revision: "r", percent: 0, tag: "v1", url: "http://hello--v1.example.com"})
	got := Compile(r, Naming{ClusterDomain: "corp", TagName: func(route, tag string) (string, error) { return route + "--" + tag, nil }}, Policy{})
	want := []string{"hello--v1.default", "hello--v1.default.svc", "hello--v1.default.svc.corp"}
	if diff := cmp.Diff(want, got.GetVirtualHosts()[1].GetHosts()); diff != "" {
		t.Errorf("hosts of the tag (-want +got):\n%s", diff)
	}
}

func TestRedirectPort(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		policy      Policy
		annotations map[string]string
		want        uint32
		problem     string
	}{
		{name: "nothing said", want: 0},
		{name: "by the administrator", policy: Policy{RedirectHTTP: true}, want: 443},
		{name: "another port", policy: Policy{RedirectHTTP: true, HTTPSPort: 8443}, want: 8443},
		{name: "by the annotation", annotations: map[string]string{"networking.knative.dev/http-protocol": "Redirected"}, want: 443},
		{name: "by the older annotation", annotations: map[string]string{"networking.knative.dev/httpOption": "redirected"}, want: 443},
		{
			name: "the annotation against the administrator", policy: Policy{RedirectHTTP: true},
			annotations: map[string]string{"networking.knative.dev/http-protocol": "Enabled"}, want: 0,
		},
		{
			name: "what means nothing leaves it to the administrator", policy: Policy{RedirectHTTP: true},
			annotations: map[string]string{"networking.knative.dev/http-protocol": "Sometimes"},
			want:        443, problem: "incorrect http-protocol annotation: sometimes",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.policy.redirectPort(tt.annotations)
			if got != tt.want {
				t.Errorf("port is %d, want %d", got, tt.want)
			}
			if problem := fmt.Sprint(err); err != nil && problem != tt.problem || err == nil && tt.problem != "" {
				t.Errorf("problem is %v, want %q", err, tt.problem)
			}
		})
	}
}

func revision(name string, edit func(*servingv1.Revision)) *servingv1.Revision {
	rev := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name,
		Labels: map[string]string{"serving.knative.dev/service": "hello", "serving.knative.dev/configuration": "hello"},
	}}
	rev.Spec.Containers = []corev1.Container{{Name: "user-container"}}
	if edit != nil {
		edit(rev)
	}
	return rev
}

func TestCompileBackend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*servingv1.Revision)
		want string
	}{
		{name: "no limits", edit: nil, want: `timeouts {}`},
		{
			name: "everything",
			edit: func(r *servingv1.Revision) {
				r.Spec.ContainerConcurrency = new(int64(7))
				r.Spec.TimeoutSeconds = new(int64(300))
				r.Spec.ResponseStartTimeoutSeconds = new(int64(20))
				r.Spec.IdleTimeoutSeconds = new(int64(5))
				r.Spec.Containers = []corev1.Container{{Name: "side"}, {Name: "main", Ports: []corev1.ContainerPort{{Name: "h2c", ContainerPort: 9000}}}}
			},
			want: `protocol: H2C concurrency: 7 timeouts { request_ms: 300000 response_start_ms: 20000 idle_ms: 5000 }`,
		},
		{
			name: "port named http1",
			edit: func(r *servingv1.Revision) { r.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http1"}} },
			want: `protocol: HTTP1 timeouts {}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := &config.Backend{}
			base := `name: "revision/default/hello-00001" activation {}
				revision { namespace: "default" service: "hello" configuration: "hello" name: "hello-00001" } `
			if err := prototext.Unmarshal([]byte(base+tt.want), want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, CompileBackend(revision("hello-00001", tt.edit)), protocmp.Transform()); diff != "" {
				t.Errorf("CompileBackend (-want +got):\n%s", diff)
			}
		})
	}
}
