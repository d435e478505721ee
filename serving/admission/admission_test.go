package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/weft-dev/weft/serving/config"
)

// newServer returns a Server with the given config maps.
func newServer(t *testing.T, clients kubernetes.Interface, maps map[string]map[string]string) *Server {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	store := config.NewStore(config.Options{Logger: logger})
	for name, data := range maps {
		if err := store.Set(name, data); err != nil {
			t.Fatal(err)
		}
	}
	return New(clients, Options{Config: store, Logger: logger})
}

// object turns YAML into what the API server sends.
func raw(t *testing.T, text string) runtime.RawExtension {
	t.Helper()
	if text == "" {
		return runtime.RawExtension{}
	}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: data}
}

// request is one about a kind of the group serving.knative.dev/v1.
func request(t *testing.T, kind, before, after string) *admissionv1.AdmissionRequest {
	t.Helper()
	req := &admissionv1.AdmissionRequest{
		UID:       types.UID("1"),
		Kind:      metav1.GroupVersionKind{Group: "serving.knative.dev", Version: "v1", Kind: kind},
		Resource:  metav1.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: strings.ToLower(kind) + "s"},
		Namespace: "default", Operation: admissionv1.Create, UserInfo: authenticationv1.UserInfo{Username: "alice"},
		Object: raw(t, after), OldObject: raw(t, before),
	}
	if before != "" {
		req.Operation = admissionv1.Update
	}
	return req
}

// defaulted is what the API server stores after defaulting.
func defaulted(t *testing.T, s *Server, req *admissionv1.AdmissionRequest) map[string]any {
	t.Helper()
	response := s.mutate(t.Context(), req)
	if !response.Allowed {
		t.Fatalf("refused: %s", response.Result.Message)
	}
	data := req.Object.Raw
	if len(response.Patch) > 0 {
		patch, err := jsonpatch.DecodePatch(response.Patch)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = patch.Apply(data); err != nil {
			t.Fatalf("the patch %s does not apply: %v", response.Patch, err)
		}
	}
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// complete makes a request what the validating webhook gets: its objects have been defaulted.
func complete(t *testing.T, s *Server, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionRequest {
	t.Helper()
	after, err := json.Marshal(defaulted(t, s, req))
	if err != nil {
		t.Fatal(err)
	}
	if len(req.OldObject.Raw) > 0 {
		stored := *req
		stored.Object, stored.OldObject = req.OldObject, runtime.RawExtension{}
		if req.OldObject.Raw, err = json.Marshal(defaulted(t, s, &stored)); err != nil {
			t.Fatal(err)
		}
	}
	req.Object.Raw = after
	return req
}

// at follows a path of keys and indexes.
func at(t *testing.T, value any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, ok := value.(map[string]any)
			if !ok {
				return nil
			}
			value = m[s]
		case int:
			l, ok := value.([]any)
			if !ok || s >= len(l) {
				return nil
			}
			value = l[s]
		}
	}
	return value
}

const service = `
metadata: {name: hello, namespace: default}
spec: {template: {spec: {containers: [{image: ghcr.io/a/b}]}}}
`

func TestDefaulting(t *testing.T) {
	t.Parallel()
	signed := func(creator, modifier, spec string) string {
		return fmt.Sprintf("metadata: {name: hello, annotations: {serving.knative.dev/creator: %s, serving.knative.dev/lastModifier: %s}}\nspec: %s",
			creator, modifier, spec)
	}
	for _, tt := range []struct {
		name          string
		maps          map[string]map[string]string
		kind          string
		before, after string
		path          []any
		want          any
	}{
		{name: "timeout", kind: "Service", after: service, path: []any{"spec", "template", "spec", "timeoutSeconds"}, want: 300.},
		{
			name: "timeout by config map", kind: "Service", after: service, maps: map[string]map[string]string{"config-defaults": {"revision-timeout-seconds": "60"}},
			path: []any{"spec", "template", "spec", "timeoutSeconds"}, want: 60.,
		},
		{name: "container name", kind: "Service", after: service, path: []any{"spec", "template", "spec", "containers", 0, "name"}, want: "user-container"},
		{name: "concurrency", kind: "Configuration", after: service, path: []any{"spec", "template", "spec", "containerConcurrency"}, want: 0.},
		{name: "service links", kind: "Service", after: service, path: []any{"spec", "template", "spec", "enableServiceLinks"}, want: false},
		{name: "traffic", kind: "Service", after: service, path: []any{"spec", "traffic", 0, "percent"}, want: 100.},
		{name: "creator", kind: "Service", after: service, path: []any{"metadata", "annotations", "serving.knative.dev/creator"}, want: "alice"},
		{name: "modifier", kind: "Route", after: "metadata: {name: r}\nspec: {traffic: [{revisionName: a, percent: 100}]}", path: []any{"metadata", "annotations", "serving.knative.dev/lastModifier"}, want: "alice"},
		{
			name: "generateName", kind: "Service", after: "metadata: {generateName: hello-}\nspec: {template: {spec: {containers: [{image: ghcr.io/a/b}]}}}",
			path: []any{"metadata", "generateName"}, want: "hello-",
		},
		{
			name: "without any spec", kind: "Service", after: "metadata: {name: hello}", path: []any{"spec", "traffic", 0, "latestRevision"}, want: true,
		},
		{
			name: "a change names its author", kind: "Service", before: signed("bob", "bob", "{template: {spec: {containers: [{image: ghcr.io/a/b}]}}}"),
			after: signed("bob", "bob", "{template: {spec: {containers: [{image: ghcr.io/a/c}]}}}"),
			path:  []any{"metadata", "annotations", "serving.knative.dev/lastModifier"}, want: "alice",
		},
		{
			name: "a change keeps the creator", kind: "Service", before: signed("bob", "bob", "{template: {spec: {containers: [{image: ghcr.io/a/b}]}}}"),
			after: signed("bob", "bob", "{template: {spec: {containers: [{image: ghcr.io/a/c}]}}}"),
			path:  []any{"metadata", "annotations", "serving.knative.dev/creator"}, want: "bob",
		},
		{
			name: "what only defaulting changes has no author", kind: "Service", before: signed("bob", "bob", "{template: {spec: {containers: [{image: ghcr.io/a/b}]}}}"),
			after: signed("bob", "bob", "{template: {spec: {timeoutSeconds: 300, containers: [{image: ghcr.io/a/b}]}}}"),
			path:  []any{"metadata", "annotations", "serving.knative.dev/lastModifier"}, want: "bob",
		},
		{
			name: "read-only mounts", kind: "Service",
			after: "metadata: {name: h}\nspec: {template: {spec: {containers: [{image: ghcr.io/a/b, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, secret: {secretName: s}}]}}}",
			path:  []any{"spec", "template", "spec", "containers", 0, "volumeMounts", 0, "readOnly"}, want: true,
		},
		{
			name: "exact integers survive", kind: "Service", after: "metadata: {name: h}\nspec: {template: {spec: {timeoutSeconds: 9007199254740993, containers: [{image: ghcr.io/a/b}]}}}",
			path: []any{"spec", "template", "spec", "containers", 0, "image"}, want: "ghcr.io/a/b",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, nil, tt.maps)
			object := defaulted(t, s, request(t, tt.kind, tt.before, tt.after))
			if got := at(t, object, tt.path...); got != tt.want {
				t.Errorf("%v is %v, want %v", tt.path, got, tt.want)
			}
		})
	}
}

// TestDefaultingIsIdempotent checks that what has been defaulted needs no patch.
func TestDefaultingIsIdempotent(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil, nil)
	once := defaulted(t, s, request(t, "Service", "", service))
	data, err := json.Marshal(once)
	if err != nil {
		t.Fatal(err)
	}
	req := request(t, "Service", "", "")
	req.Object.Raw, req.OldObject.Raw, req.Operation = data, data, admissionv1.Update
	if response := s.mutate(t.Context(), req); len(response.Patch) > 0 {
		t.Errorf("the second patch is %s", response.Patch)
	}
}

func TestDefaultingRefuses(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil, nil)
	unknown := request(t, "Service", "", service)
	unknown.Kind.Kind = "Teapot"
	broken := request(t, "Service", "", service)
	broken.Object.Raw = []byte(`{"spec": 5}`)
	for _, tt := range []struct {
		name string
		req  *admissionv1.AdmissionRequest
		want string
	}{
		{"an unknown kind", unknown, "mutation failed: unhandled kind"},
		{"what does not decode", broken, "mutation failed: cannot decode incoming new object"},
		{"nothing", request(t, "Service", "", ""), "mutation failed: the new object may not be nil"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			response := s.mutate(t.Context(), tt.req)
			if response.Allowed || !strings.Contains(response.Result.Message, tt.want) || response.Result.Code != http.StatusBadRequest {
				t.Errorf("got %+v, want a refusal with %q", response, tt.want)
			}
		})
	}
}

func annotated(key, value string) string {
	return fmt.Sprintf("metadata: {name: hello}\nspec: {template: {metadata: {annotations: {%s: %q}}, spec: {containers: [{image: ghcr.io/a/b}]}}}", key, value)
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil, nil)
	response := s.validate(t.Context(), complete(t, s, request(t, "Service", "", annotated("queue.sidecar.serving.knative.dev/resource-percentage", "20"))))
	if !response.Allowed || !strings.Contains(strings.Join(response.Warnings, "\n"), "deprecated") {
		t.Errorf("got %+v, want a warning of what is deprecated", response)
	}
}

func TestDeletionsAreAllowed(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil, nil)
	req := request(t, "Service", service, "")
	req.Operation = admissionv1.Delete
	for name, answer := range map[string]review{"defaulting": s.mutate, "validation": s.validate, "config": s.validateConfig} {
		if response := answer(t.Context(), req); !response.Allowed {
			t.Errorf("%s refused: %s", name, response.Result.Message)
		}
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		kind     string
		owned    string
		notTried bool
		answer   error
		want     string
	}{
		{name: "a pod that the API server takes", kind: "Service"},
		{name: "a pod that it refuses", kind: "Service", answer: errors.New("no such service account"), want: "validation callback failed: dry run failed with no such service account: spec.template"},
		{name: "of a Configuration", kind: "Configuration", answer: errors.New("no"), want: "validation callback failed"},
		{name: "of a Service's Configuration", kind: "Configuration", owned: "labels: {serving.knative.dev/service: hello}, ownerReferences: [{kind: Service, name: hello}]", notTried: true},
		{name: "where a webhook cannot", kind: "Service", answer: errors.New("admission webhook x does not support dry run")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			clients := fake.NewClientset()
			var tried *corev1.Pod
			clients.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
				create, ok := action.(clienttesting.CreateActionImpl)
				if !ok {
					return false, nil, nil
				}
				tried, _ = create.GetObject().(*corev1.Pod)
				if dry := create.GetCreateOptions().DryRun; len(dry) != 1 || dry[0] != metav1.DryRunAll {
					t.Errorf("the pod is created for real: %v", dry)
				}
				return true, tried, tt.answer
			})
			s := newServer(t, clients, nil)
			text := fmt.Sprintf("metadata: {name: hello, namespace: default, %s}\nspec: {template: {spec: {containers: [{name: c, image: ghcr.io/a/b}]}}}", tt.owned)
			req := complete(t, s, request(t, tt.kind, "", text))
			if response := s.validate(t.Context(), req); !response.Allowed || tried != nil {
				t.Errorf("without dry run: %+v, tried %v", response, tried)
			}
			req.DryRun = new(true)
			response := s.validate(t.Context(), req)
			if (tried == nil) != tt.notTried {
				t.Errorf("tried pod: %v", tried)
			}
			if (tt.want == "") != response.Allowed || (tt.want != "" && !strings.Contains(response.Result.Message, tt.want)) {
				t.Errorf("got %+v, want %q", response, tt.want)
			}
		})
	}
}

func TestConfigValidation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		text string
		want string
	}{
		{name: "valid", text: "metadata: {name: config-autoscaler}\ndata: {stable-window: 20s}"},
		{name: "somebody else's", text: "metadata: {name: other}\ndata: {stable-window: x}"},
		{name: "invalid", text: "metadata: {name: config-autoscaler}\ndata: {stable-window: 1s}", want: "validation failed: parsing config map \"config-autoscaler\": stable-window = 1s"},
		{name: "an example that nobody changed", text: "metadata: {name: config-gc, annotations: {knative.dev/example-checksum: \"352441c2\"}}\ndata: {_example: 'abc'}"},
		{name: "an edit of the example", text: "metadata: {name: config-gc, annotations: {knative.dev/example-checksum: \"352441c2\"}}\ndata: {_example: 'abcd'}", want: `the update modifies a key in "_example" which is probably not what you want`},
		{name: "an example without checksum", text: "metadata: {name: config-gc}\ndata: {_example: 'abcd'}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, nil, nil)
			response := s.validateConfig(t.Context(), &admissionv1.AdmissionRequest{Operation: admissionv1.Update, Object: raw(t, tt.text)})
			if (tt.want == "") != response.Allowed || (tt.want != "" && !strings.Contains(response.Result.Message, tt.want)) {
				t.Errorf("got %+v, want %q", response, tt.want)
			}
		})
	}
}

// TestServer runs the real server and asks it as an API server does: by the registered URL, trusting the registered authority.
func TestServer(t *testing.T) {
	t.Parallel()
	clients := fake.NewClientset()
	s := newServer(t, clients, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("Run ended: %v", err)
	}
	api := clients.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Get(ctx, "webhook.serving.knative.dev", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client := mutating.Webhooks[0].ClientConfig
	if got := post(t, *client.URL, client.CABundle, request(t, "Service", "", service)); !got.Allowed || len(got.Patch) == 0 || got.UID != "1" {
		t.Errorf("defaulting: %+v", got)
	}
	for name, want := range map[string]string{
		"validation.webhook.serving.knative.dev": "validation failed: ", "config.webhook.serving.knative.dev": "",
	} {
		validating, err := api.ValidatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		client := validating.Webhooks[0].ClientConfig
		got := post(t, *client.URL, client.CABundle, request(t, "Service", "", "metadata: {name: a}"))
		if got.Allowed != (want == "") || (!got.Allowed && !strings.HasPrefix(got.Result.Message, want)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func post(t *testing.T, url string, authority []byte, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		t.Fatal("the registered authority is not PEM")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: req})
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport}).Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var got admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.APIVersion != "admission.k8s.io/v1" || got.Kind != "AdmissionReview" || got.Response == nil {
		t.Fatalf("not a review: %+v", got)
	}
	return got.Response
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil, nil)
	for _, body := range []string{"", "{", "{}", `{"request": null}`} {
		w := &recorder{header: http.Header{}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, defaultingPath, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		s.Handler().ServeHTTP(w, req)
		if w.status != http.StatusBadRequest {
			t.Errorf("body %q: status %d", body, w.status)
		}
	}
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }
