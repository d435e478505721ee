package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// visibility is the label that hides a Service, a Route or a tag in the cluster.
const visibility = "networking.knative.dev/visibility"

func TestVisibilityFlips(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	caller := u.deploy("caller", annotate("min-scale", "1"))
	s := u.deploy("shy", env("VERSION", "one"), split(target("", 100, "peek")))
	public, tag := s.Status.URL, tagURL(s, "peek")
	inside := func(host string) string {
		u.Helper()
		return u.mustGet(caller.Status.URL, "/fetch?url=http://"+host+"."+u.namespace+".svc.cluster.local/")
	}
	const local = serving.VisibilityClusterLocal

	patch := func(name, op string) {
		u.Helper()
		value := ""
		if op == "add" {
			value = fmt.Sprintf(`,"value":%q`, local)
		}
		u.kubectl("patch", "service", name, "--type=json", "-p",
			fmt.Sprintf(`[{"op":%q,"path":"/metadata/labels/networking.knative.dev~1visibility"%s}]`, op, value))
	}
	patch("peek-shy", "add")
	u.waitAnswer(tag, http.StatusNotFound, "")
	u.waitAnswer(public, http.StatusOK, "shy-00001")
	if got := inside("peek-shy"); !strings.HasPrefix(got, "shy-00001") {
		t.Errorf("the hidden tag answers %q inside the cluster", got)
	}
	// The label is no change of the service: its status follows in its own time.
	u.waitTagLocal("shy", "peek", true)
	patch("peek-shy", "remove")
	u.waitAnswer(tag, http.StatusOK, "shy-00001")

	u.change("shy", func(s *servingv1.Service) { s.Labels = map[string]string{visibility: local} })
	u.waitAnswer(public, http.StatusNotFound, "")
	u.waitAnswer(tag, http.StatusNotFound, "")
	s = u.waitLocal("shy", true)
	if got, want := s.Status.URL.String(), s.Status.Address.URL.String(); got != want {
		t.Errorf("url %s and address %s of a cluster-local service differ", got, want)
	}
	for _, host := range []string{"shy", "peek-shy"} {
		if got := inside(host); !strings.HasPrefix(got, "shy-00001") {
			t.Errorf("%s answers %q inside the cluster", host, got)
		}
	}
	// Any other value means nothing.
	u.change("shy", func(s *servingv1.Service) { s.Labels[visibility] = "nowhere" })
	u.waitLocal("shy", false)
	u.waitAnswer(public, http.StatusOK, "shy-00001")
	u.waitAnswer(tag, http.StatusOK, "shy-00001")
}

func (u *user) waitLocal(name string, want bool) *servingv1.Service {
	u.Helper()
	var s *servingv1.Service
	u.wait(30*time.Second, fmt.Sprintf("%s is cluster-local: %v", name, want), func() (err error) {
		if s, err = u.load(name); err != nil {
			return err
		}
		if got := strings.HasSuffix(s.Status.URL.Host, ".svc.cluster.local"); got != want || !s.IsReady() {
			return fmt.Errorf("url %s, conditions %s", s.Status.URL, conditions(s))
		}
		return nil
	})
	return s
}
