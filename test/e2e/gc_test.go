package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func (u *user) revision(name string) (*servingv1.Revision, error) {
	var r servingv1.Revision
	err := u.Kube.Get(u.Context(), keyOf(u.namespace, name), &r)
	return &r, err
}

// roll changes a service and waits until its new revision has the traffic.
func (u *user) roll(name string, generation int) {
	u.Helper()
	u.update(name, func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Env[0].Value = fmt.Sprint(generation) })
	want := fmt.Sprintf("%s-%05d", name, generation)
	u.wait(60*time.Second, want+" has the traffic", func() error {
		s, err := u.load(name)
		if err != nil {
			return err
		}
		if !s.IsReady() || s.Status.LatestReadyRevisionName != want {
			return fmt.Errorf("the latest ready revision is %q, conditions %s", s.Status.LatestReadyRevisionName, conditions(s))
		}
		return nil
	})
}

func (u *user) waitRoutingState(name, want, routes string) {
	u.Helper()
	u.wait(30*time.Second, name+" is "+want, func() error {
		r, err := u.revision(name)
		if err != nil {
			return err
		}
		if got := r.Labels[serving.RoutingStateLabelKey]; got != want {
			return fmt.Errorf("its routing state is %q", got)
		}
		if got := r.Annotations[serving.RoutesAnnotationKey]; got != routes {
			return fmt.Errorf("its routes are %q, want %q", got, routes)
		}
		if _, err := time.Parse(time.RFC3339, r.Annotations[serving.RoutingStateModifiedAnnotationKey]); err != nil {
			return fmt.Errorf("since when: %w", err)
		}
		return nil
	})
}

func (u *user) waitGone(name string) {
	u.Helper()
	u.wait(30*time.Second, "revision "+name+" is gone", func() error {
		if _, err := u.revision(name); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there: %w", err)
		}
		return nil
	})
}

// TestGarbageCollection changes the configuration of the platform, and so runs alone.
func TestGarbageCollection(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("old", env("VERSION", "1"))
	u.waitRoutingState("old-00001", "active", "old")
	u.roll("old", 2)
	u.waitRoutingState("old-00001", "reserve", "")

	// An edit takes effect at once, and afterwards the passing of time does.
	u.configure("config-gc", map[string]string{
		"retain-since-create-time": "1s", "retain-since-last-active-time": "3s", "min-non-active-revisions": "0",
	})
	u.waitGone("old-00001")
	events := u.kubectl("get", "events", "--field-selector", "reason=RevisionCollected", "-o", "jsonpath={.items[*].involvedObject.name}: {.items[*].message}")
	if !strings.Contains(events, `old: Deleted revision "old-00001": it was created`) {
		t.Errorf("no Event of the configuration says why the revision was deleted: %q", events)
	}

	u.kubectl("annotate", "revision", "old-00002", "serving.knative.dev/no-gc=true")
	u.roll("old", 3)
	u.waitRoutingState("old-00002", "reserve", "")
	u.roll("old", 4)
	u.waitGone("old-00003")
	if _, err := u.revision("old-00002"); err != nil {
		t.Errorf("the revision with no-gc: %v", err)
	}
	if got, want := u.mustGet(s.Status.URL, "/"), "old-00004 4\n"; got != want {
		t.Errorf("body is %q, want %q", got, want)
	}
	u.kubectl("annotate", "revision", "old-00002", "serving.knative.dev/no-gc-")
	u.waitGone("old-00002")
}

// TestRoutingState moves a route that was made by hand between revisions, and removes it.
func TestRoutingState(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "byhand"}}
	c.Spec.Template.Spec.Containers = []corev1.Container{{Image: serverImage, Env: []corev1.EnvVar{{Name: "VERSION", Value: "1"}}}}
	if err := u.Kube.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	u.waitRoutingState("byhand-00001", "pending", "")
	u.kubectl("patch", "configuration", "byhand", "--type=json", "-p", `[{"op":"replace","path":"/spec/template/spec/containers/0/env/0/value","value":"2"}]`)
	u.waitRoutingState("byhand-00002", "pending", "")

	route := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "way"}}
	route.Spec.Traffic = []servingv1.TrafficTarget{{RevisionName: "byhand-00001", Percent: new(int64(100))}}
	if err := u.Kube.Create(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	u.waitRoutingState("byhand-00001", "active", "way")
	u.waitRoutingState("byhand-00002", "pending", "")
	u.kubectl("wait", "--for=condition=Ready", "route/way", "--timeout=30s")
	u.kubectl("patch", "route", "way", "--type=json", "-p", `[{"op":"replace","path":"/spec/traffic/0/revisionName","value":"byhand-00002"}]`)
	u.waitRoutingState("byhand-00002", "active", "way")
	u.waitRoutingState("byhand-00001", "reserve", "")
	u.kubectl("delete", "route", "way")
	u.waitRoutingState("byhand-00002", "reserve", "")
}
