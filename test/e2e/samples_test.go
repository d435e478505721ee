package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// sampleImage is what the samples' YAML names.
const sampleImage = "dev.local/hello:v1"

func TestSamples(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	sample := func(elem ...string) string { return filepath.Join(append([]string{"..", "..", "samples"}, elem...)...) }
	u.must("image", "build", sampleImage, sample("hello"))

	u.kubectl("apply", "-f", sample("hello", "service.yaml"))
	if got := u.mustGet(u.waitReady("hello").Status.URL, "/"); got != "Hello World!\n" {
		t.Errorf("samples/hello answers %q", got)
	}

	u.kubectl("apply", "-f", sample("traffic-split", "v1.yaml"))
	u.waitReady("split")
	u.kubectl("apply", "-f", sample("traffic-split", "v2.yaml"))
	var s *servingv1.Service
	u.wait(60*time.Second, "both revisions have traffic", func() (err error) {
		s, err = u.load("split")
		if err == nil && (!s.IsReady() || s.Status.ObservedGeneration != s.Generation || len(s.Status.Traffic) != 2) {
			err = fmt.Errorf("traffic %v, conditions %s", s.Status.Traffic, conditions(s))
		}
		return err
	})
	seen := map[string]int{}
	for range 200 {
		a, err := u.get(s.Status.URL, "/")
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%v, status %d", err, a.status)
		}
		seen[strings.TrimSpace(a.body)]++
	}
	if seen["Hello v1!"] < 156 || seen["Hello v1!"] > 164 || seen["Hello v1!"]+seen["Hello v2!"] != 200 {
		t.Errorf("200 requests were split %v, want 80 to 20", seen)
	}
	for _, target := range s.Status.Traffic {
		want := map[string]string{"current": "Hello v1!\n", "candidate": "Hello v2!\n"}[target.Tag]
		if got := u.mustGet(target.URL, "/"); got != want {
			t.Errorf("tag %s answers %q, want %q", target.Tag, got, want)
		}
	}
}
