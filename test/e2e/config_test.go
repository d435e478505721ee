package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// servingNamespace is where the config maps of serving are.
const servingNamespace = "knative-serving"

// configure sets keys of a config map of serving until the end of the test. An empty value removes a key.
func (u *user) configure(name string, values map[string]string) {
	u.Helper()
	before, err := u.setConfig(u.Context(), name, values)
	if err != nil {
		u.Fatalf("changing config map %s: %v", name, err)
	}
	u.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, err := u.setConfig(ctx, name, before); err != nil {
			u.Errorf("restoring config map %s: %v", name, err)
		}
	})
}

// setConfig returns what the keys were before.
func (u *user) setConfig(ctx context.Context, name string, values map[string]string) (before map[string]string, err error) {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: servingNamespace, Name: name}}
	err = u.Kube.Get(ctx, client.ObjectKeyFromObject(m), m)
	absent := apierrors.IsNotFound(err)
	if err != nil && !absent {
		return nil, err
	}
	if m.Data == nil {
		m.Data = map[string]string{}
	}
	before = map[string]string{}
	for key := range values {
		before[key] = m.Data[key]
	}
	maps.Copy(m.Data, values)
	maps.DeleteFunc(m.Data, func(_, value string) bool { return value == "" })
	if absent {
		return before, u.Kube.Create(ctx, m)
	}
	return before, u.Kube.Update(ctx, m)
}

// TestNetworkConfigurationIsLive changes what holds for all services; so it is not parallel. The host of a service that a change does
// not concern answers throughout.
func TestNetworkConfigurationIsLive(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("public", env("VERSION", "one"), split(target("", 100, ""), target("", 0, "next")), func(s *servingv1.Service) {
		s.Labels = map[string]string{"tier": "gold"}
	})
	plain := u.deploy("plain")
	port := s.Status.URL.URL().Port()
	at := func(host string) *apis.URL { return apis.HTTP(host + ":" + port) }
	flow := u.send(1, plain.Status.URL, "/")
	step := func(what string, moved func(s *servingv1.Service) bool) *servingv1.Service {
		t.Helper()
		u.wait(20*time.Second, what, func() (err error) {
			if s, err = u.load("public"); err != nil {
				return err
			}
			if !s.IsReady() || !moved(s) {
				return fmt.Errorf("url %s, tag at %s, conditions %s", s.Status.URL, tagURL(s, "next"), conditions(s))
			}
			return nil
		})
		return s
	}

	u.configure("config-domain", map[string]string{"gold.example.com": "selector:\n  tier: gold\n"})
	old := s.Status.URL
	step("the domain has moved", func(s *servingv1.Service) bool {
		return s.Status.URL.Host == at("public."+u.namespace+".gold.example.com").Host
	})
	u.waitAnswer(s.Status.URL, http.StatusOK, "public-00001")
	u.waitAnswer(tagURL(s, "next"), http.StatusOK, "public-00001")
	u.waitAnswer(old, http.StatusNotFound, "")

	u.configure("config-network", map[string]string{"tag-template": "{{.Name}}--{{.Tag}}"})
	oldTag := tagURL(s, "next")
	step("the tag has moved", func(s *servingv1.Service) bool {
		return tagURL(s, "next").Host == at("public--next."+u.namespace+".gold.example.com").Host
	})
	u.waitAnswer(tagURL(s, "next"), http.StatusOK, "public-00001")
	u.waitAnswer(oldTag, http.StatusNotFound, "")
	if got := u.mustGet(plain.Status.URL, "/fetch?url=http://public--next."+u.namespace+".svc.cluster.local/"); !strings.HasPrefix(got, "public-00001") {
		t.Errorf("the tag answers %q at its new name in the cluster", got)
	}

	if sent, failures := flow.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests to a host that was not concerned failed, the first: %s", len(failures), sent, failures[0])
	}

	u.configure("config-network", map[string]string{"domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}"})
	step("the template has moved all hosts", func(s *servingv1.Service) bool {
		return s.Status.URL.Host == at("public-"+u.namespace+".gold.example.com").Host
	})
	u.waitAnswer(s.Status.URL, http.StatusOK, "public-00001")
	// The host of this service has moved, too.
	u.waitAnswer(plain.Status.URL, http.StatusNotFound, "")

	u.configure("config-network", map[string]string{"http-protocol": "Redirected", "rollout-duration": "3"})
	u.waitAnswer(s.Status.URL, http.StatusMovedPermanently, "")
	u.change("public", func(s *servingv1.Service) { s.Annotations["networking.knative.dev/http-protocol"] = "Enabled" })
	u.waitAnswer(s.Status.URL, http.StatusOK, "public-00001")
	u.update("public", version("two"))
	if seen := u.watchRollout("public", "public-00002", 40*time.Second); len(seen.failures) > 0 || !seen.inProgress {
		t.Errorf("with a rollout duration for all: shares %v, RolloutInProgress %v, %q", seen.shares, seen.inProgress, seen.failures)
	}
}
