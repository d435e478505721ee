package route

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

// with returns settings under config maps.
func with(t *testing.T, port int, maps map[string]map[string]string) Settings {
	t.Helper()
	snapshot, err := config.Parse(maps, config.Domains{Default: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	return Settings{Config: snapshot, Port: port, HTTPSPort: port + 363}
}

func TestURL(t *testing.T) {
	t.Parallel()
	hidden := map[string]string{VisibilityLabel: serving.VisibilityClusterLocal}
	tests := []struct {
		name   string
		port   int
		maps   map[string]map[string]string
		labels map[string]string
		tag    string
		// hide names a placeholder that the user made local to the cluster.
		hide    string
		want    string
		wantErr error
	}{
		{name: "plain", want: "http://hello.default.localhost"},
		{name: "port", port: 8080, want: "http://hello.default.localhost:8080"},
		{name: "the port of the scheme", port: 80, want: "http://hello.default.localhost"},
		{
			name: "scheme", port: 80, maps: map[string]map[string]string{"config-network": {"default-external-scheme": "https"}},
			want: "https://hello.default.localhost",
		},
		{
			name: "port of https", port: 8080, maps: map[string]map[string]string{"config-network": {"default-external-scheme": "https"}},
			want: "https://hello.default.localhost:8443",
		},
		{name: "tag", port: 8080, tag: "next", want: "http://next-hello.default.localhost:8080"},
		{name: "local by label", port: 8080, labels: hidden, want: "http://hello.default.svc.cluster.local"},
		{name: "local by label, tag", port: 8080, labels: hidden, tag: "next", want: "http://next-hello.default.svc.cluster.local"},
		{name: "local by placeholder", tag: "next", hide: "next-hello", want: "http://next-hello.default.svc.cluster.local"},
		{name: "another placeholder", hide: "next-hello", want: "http://hello.default.localhost"},
		{name: "an unknown visibility", labels: map[string]string{VisibilityLabel: "secret"}, want: "http://hello.default.localhost"},
		{
			name: "domains", labels: map[string]string{"app": "prod"}, want: "http://hello.default.example.com",
			maps: map[string]map[string]string{"config-domain": {"example.com": "selector:\n  app: prod\n", "example.org": ""}},
		},
		{
			name: "local by domain", port: 8080, want: "http://hello.default.svc.cluster.local",
			maps: map[string]map[string]string{"config-domain": {"svc.cluster.local": ""}},
		},
		{
			name: "templates", tag: "next", want: "http://hello---next-default.localhost",
			maps: map[string]map[string]string{"config-network": {
				"domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}", "tag-template": "{{.Name}}---{{.Tag}}",
			}},
		},
		{
			name: "templates do not change local names", labels: hidden, want: "http://hello.default.svc.cluster.local",
			maps: map[string]map[string]string{"config-network": {"domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}"}},
		},
		{
			name: "a template that needs a label", wantErr: ErrHost,
			maps: map[string]map[string]string{"config-network": {"domain-template": `{{.Name}}-{{index .Labels "team"}}-.{{.Domain}}`}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := with(t, tt.port, tt.maps)
			r := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello", Labels: tt.labels}}
			placeholders := map[string]*corev1.Service{tt.hide: {ObjectMeta: metav1.ObjectMeta{Labels: hidden}}}
			local, err := s.Local(r, tt.tag, placeholders)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.URL(r, tt.tag, local)
			if !errors.Is(err, tt.wantErr) || (err != nil) != (tt.wantErr != nil) {
				t.Fatalf("URL: %v, want %v", err, tt.wantErr)
			}
			if err == nil && got.String() != tt.want {
				t.Errorf("url is %q, want %q", got, tt.want)
			}
		})
	}
}
