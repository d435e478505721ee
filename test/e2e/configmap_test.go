package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The tests in this file change what holds for all services; they are not parallel, so they run before the parallel ones.

// tried is what a service would become, without anything being stored.
func (u *user) tried(options ...option) (*servingv1.Service, error) {
	s := u.service("tried", options...)
	err := u.Kube.Create(u.Context(), s, client.DryRunAll)
	return s, err
}

// TestConfigDefaults changes what services get that do not say otherwise, and what they may ask for.
func TestConfigDefaults(t *testing.T) {
	u := newUser(t, shared)
	u.configure("config-defaults", map[string]string{"revision-timeout-seconds": "77", "container-name-template": "main", "container-concurrency-max-limit": "5"})
	u.wait(10*time.Second, "the defaults are in force", func() error {
		s, err := u.tried()
		if err != nil {
			return err
		}
		if got := *s.Spec.Template.Spec.TimeoutSeconds; got != 77 {
			return fmt.Errorf("timeout %d", got)
		}
		if got := s.Spec.Template.Spec.Containers[0].Name; got != "main" {
			return fmt.Errorf("container %q", got)
		}
		return nil
	})
	if _, err := u.tried(concurrency(6)); err == nil || !strings.Contains(err.Error(), "expected 0 <= 6 <= 5: spec.template.spec.containerConcurrency") {
		t.Errorf("a concurrency above the limit: %v", err)
	}
}

// TestRequestLog switches the log of requests on and off again.
func TestRequestLog(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("logged", annotate("window", "6s"))
	u.configure("config-observability", map[string]string{"logging.enable-request-log": "true"})
	path := "/hello-" + u.namespace
	u.wait(10*time.Second, "a request leaves a line", func() error {
		u.mustGet(s.Status.URL, path)
		line, err := u.logged(path)
		if err != nil {
			return err
		}
		var entry struct {
			HTTPRequest struct {
				RequestMethod, RequestURL, ServerIP string
				Status                              int
			}
			TraceID string
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			return fmt.Errorf("%w: %q", err, line)
		}
		if r := entry.HTTPRequest; r.RequestMethod != http.MethodGet || r.RequestURL != path || r.Status != http.StatusOK || r.ServerIP == "" || len(entry.TraceID) != 32 {
			t.Errorf("line %q", line)
		}
		return nil
	})
	u.configure("config-observability", map[string]string{"logging.enable-request-log": "false"})
	count := 0
	u.wait(10*time.Second, "the log falls silent", func() error {
		count++
		silent := fmt.Sprintf("/silent-%d-%s", count, u.namespace)
		u.mustGet(s.Status.URL, silent)
		if line, err := u.logged(silent); err == nil {
			return fmt.Errorf("there is %q", line)
		}
		return nil
	})
}

// logged is the line about a path in the log of the proxy.
func (u *user) logged(path string) (string, error) {
	data, err := os.ReadFile(filepath.Join(u.StateDir, "logs", "weft-proxy.log"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, `"requestUrl": "`+path+`"`) {
			return line, nil
		}
	}
	return "", fmt.Errorf("no line about %s", path)
}

// TestConfigMapsAreShippedAndChecked looks at every config map: it is there, a mistake in it is refused with the key, an unknown key
// is not, an edit of its example is refused, and it may be absent.
func TestConfigMapsAreShippedAndChecked(t *testing.T) {
	u := newUser(t, shared)
	for name, mistake := range map[string][2]string{
		"config-autoscaler":      {"stable-window", "1s"},
		"config-defaults":        {"revision-timeout-seconds", "601"},
		"config-deployment":      {"progress-deadline", "0s"},
		"config-domain":          {"example.com", "selector: ["},
		"config-gc":              {"min-non-active-revisions", "-1"},
		"config-leader-election": {"buckets", "11"},
		"config-logging":         {"loglevel.controller", "loud"},
		"config-network":         {"domain-template", "{{"},
		"config-observability":   {"metrics-protocol", "smoke"},
	} {
		if _, err := u.setConfig(t.Context(), name, map[string]string{mistake[0]: mistake[1]}); err == nil ||
			!strings.Contains(err.Error(), "validation failed: ") || !strings.Contains(err.Error(), mistake[0]) {
			t.Errorf("%s with %q: %v", name, mistake, err)
		}
	}
	for _, name := range []string{
		"config-autoscaler", "config-defaults", "config-deployment", "config-features", "config-gc", "config-leader-election", "config-logging",
		"config-network", "config-observability",
	} {
		u.configure(name, map[string]string{"some-key-of-tomorrow": "x"})
	}
	if _, err := u.setConfig(t.Context(), "config-gc", map[string]string{"_example": "changed"}); err == nil || !strings.Contains(err.Error(), `the update modifies a key in "_example" which is probably not what you want`) {
		t.Errorf("an edit of the example: %v", err)
	}
	// Absent is as good as empty.
	var defaults corev1.ConfigMap
	if err := u.Kube.Get(t.Context(), keyOf(servingNamespace, "config-defaults"), &defaults); err != nil {
		t.Fatal(err)
	}
	if _, err := u.setConfig(t.Context(), "config-defaults", map[string]string{"revision-timeout-seconds": "33"}); err != nil {
		t.Fatal(err)
	}
	timeouts := func(want int64) func() error {
		return func() error {
			s, err := u.tried()
			if err == nil && *s.Spec.Template.Spec.TimeoutSeconds != want {
				err = fmt.Errorf("timeout %d, want %d", *s.Spec.Template.Spec.TimeoutSeconds, want)
			}
			return err
		}
	}
	u.wait(10*time.Second, "the edit is in force", timeouts(33))
	if err := u.Kube.Delete(t.Context(), &defaults); err != nil {
		t.Fatal(err)
	}
	u.wait(10*time.Second, "without the map the defaults are in force", timeouts(300))
	defaults.ResourceVersion, defaults.UID = "", ""
	if err := u.Kube.Create(t.Context(), &defaults); err != nil {
		t.Fatal(err)
	}
}
