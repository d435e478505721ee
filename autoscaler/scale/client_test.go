package scale

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestClient looks at the request that the API server gets.
func TestClient(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got, want := r.Method+" "+r.URL.Path, "PATCH /apis/apps/v1/namespaces/default/deployments/hello-deployment/scale"; got != want {
			t.Errorf("request %s, want %s", got, want)
		}
		if got, want := r.Header.Get("Content-Type")+" "+string(body), `application/merge-patch+json {"spec":{"replicas":3}}`; got != want {
			t.Errorf("body %s, want %s", got, want)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(autoscalingv1.Scale{
			TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"}, ObjectMeta: metav1.ObjectMeta{ResourceVersion: "42"},
		}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	c, err := NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	version, err := c.Scale(t.Context(), Target{Namespace: "default", Name: "hello-deployment"}, 3)
	if err != nil || version != "42" {
		t.Errorf("got %q, %v", version, err)
	}
}
