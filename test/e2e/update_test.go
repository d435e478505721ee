package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// TestNoRequestFailsDuringAnyUpdate changes everything about a service that can be changed while requests flow to its host and to that
// of a tag that is never touched. Each change is waited for, and requests are known to have been sent after it.
func TestNoRequestFailsDuringAnyUpdate(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	stable := target("steady-00001", 0, "stable")
	u.deploy("steady", env("VERSION", "1"))
	s := u.change("steady", split(target("", 100, ""), stable))
	flows := []*traffic{u.send(2, s.Status.URL, "/"), u.send(1, tagURL(s, "stable"), "/")}
	const reserve = "steady-00003"

	patch := func(service, op string) {
		u.kubectl("patch", "service", service, "--type=json", "-p", fmt.Sprintf(
			`[{"op":%q,"path":"/metadata/labels/networking.knative.dev~1visibility","value":%q}]`, op, serving.VisibilityClusterLocal))
	}
	steps := []struct {
		name string
		do   func()
		want string // the beginning of an answer at the main host when the change has arrived
	}{
		{"a new revision", func() { u.change("steady", version("2")) }, "steady-00002 2"},
		{"another one, with other limits", func() { u.change("steady", version("3"), concurrency(7), timeout(30)) }, "steady-00003 3"},
		{"a split", func() {
			u.change("steady", split(target("steady-00001", 50, ""), target("steady-00002", 50, ""), stable))
		}, "steady-0000"},
		{"tags", func() {
			u.change("steady", split(target("steady-00001", 50, "a"), target("steady-00002", 50, "b"), target("", 0, "c"), stable))
		}, "steady-0000"},
		{"a tag moves", func() {
			u.change("steady", split(target("steady-00001", 50, "b"), target("steady-00002", 50, ""), stable))
		}, "steady-0000"},
		{"a tag is hidden", func() { patch("b-steady", "add"); u.waitTagLocal("steady", "b", true) }, "steady-0000"},
		{"and shown", func() { patch("b-steady", "remove"); u.waitTagLocal("steady", "b", false) }, "steady-0000"},
		{"no tag but one", func() { u.change("steady", split(target("", 100, ""), stable)) }, "steady-00003 3"},
		{"a rollback", func() { u.change("steady", split(target("steady-00002", 100, ""), stable)) }, "steady-00002 2"},
		{"labels and annotations", func() {
			u.change("steady", func(s *servingv1.Service) {
				s.Labels = map[string]string{"team": "a"}
				s.Annotations["example.com/note"] = "b"
			})
		}, "steady-00002 2"},
		{"a revision that nobody uses goes", func() {
			u.change("steady", version("4"))
			if err := u.Kube.Delete(t.Context(), &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: reserve}}); err != nil {
				t.Errorf("deleting %s: %v", reserve, err)
			}
		}, "steady-00002 2"},
		{"a rollout", func() {
			u.change("steady", func(s *servingv1.Service) { s.Annotations[serving.RolloutDurationKey] = "4s" }, split(target("", 100, ""), stable))
			u.update("steady", version("5"))
			if seen := u.watchRollout("steady", "steady-00005", 60*time.Second); len(seen.failures) > 0 {
				t.Error(seen.failures)
			}
		}, "steady-00005 5"},
		{"a revision that cannot start", func() {
			u.update("steady", func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Image = "dev.local/nowhere:v1" })
			u.waitCondition("steady", servingv1.ServiceConditionReady, corev1.ConditionFalse, "RevisionFailed")
		}, "steady-00005 5"},
	}
	for _, step := range steps {
		before := failedSoFar(flows)
		step.do()
		for _, flow := range flows {
			flow.waitSent(u, 20)
		}
		u.waitAnswer(s.Status.URL, http.StatusOK, step.want)
		if after := failedSoFar(flows); len(after) > len(before) {
			t.Errorf("%s: %d requests failed, the first: %s", step.name, len(after)-len(before), after[len(before)])
		}
	}
	for _, flow := range flows {
		sent, _ := flow.end()
		t.Logf("%d requests were sent", sent)
	}
}

// failedSoFar lists the failures of flows that have not ended.
func failedSoFar(flows []*traffic) (all []string) {
	for _, flow := range flows {
		flow.mu.Lock()
		all = append(all, flow.failures...)
		flow.mu.Unlock()
	}
	return all
}

func (u *user) waitTagLocal(name, tag string, want bool) {
	u.Helper()
	u.wait(30*time.Second, fmt.Sprintf("tag %s of %s is cluster-local: %v", tag, name, want), func() error {
		s, err := u.load(name)
		if err != nil {
			return err
		}
		if to := tagURL(s, tag); to == nil || strings.HasSuffix(to.Host, ".svc.cluster.local") != want || !s.IsReady() {
			return fmt.Errorf("url %s, conditions %s", to, conditions(s))
		}
		return nil
	})
}
