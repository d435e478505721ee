package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/test/platform"
)

// shortWindow is the least that Knative permits, so that tests see scaling down soon.
func shortWindow() option { return annotate("window", "6s") }

// ready counts the ready instances of a revision.
func (u *user) ready(revision string) int {
	u.Helper()
	var list corev1.PodList
	if err := u.Kube.List(u.Context(), &list, client.InNamespace(u.namespace), client.MatchingLabels{"serving.knative.dev/revision": revision}); err != nil {
		u.Fatalf("listing pods: %v", err)
	}
	n := 0
	for _, pod := range list.Items {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				n++
			}
		}
	}
	return n
}

func (u *user) waitReadyPods(limit time.Duration, revision string, want int) {
	u.Helper()
	u.wait(limit, fmt.Sprintf("%s has %d ready instances", revision, want), func() error {
		if got := u.ready(revision); got != want {
			return fmt.Errorf("it has %d", got)
		}
		return nil
	})
}

// waitWhy waits for an Event of a revision's PodAutoscaler that contains all texts.
func (u *user) waitWhy(limit time.Duration, revision string, texts ...string) {
	u.Helper()
	u.wait(limit, fmt.Sprintf("an Event of %s with %q", revision, texts), func() error {
		var list corev1.EventList
		if err := u.Kube.List(u.Context(), &list, client.InNamespace(u.namespace)); err != nil {
			return err
		}
		var seen []string
	next:
		for _, e := range list.Items {
			if e.InvolvedObject.Kind != "PodAutoscaler" || e.InvolvedObject.Name != revision {
				continue
			}
			seen = append(seen, e.Message)
			for _, text := range texts {
				if !strings.Contains(e.Message, text) {
					continue next
				}
			}
			return nil
		}
		return fmt.Errorf("there are %q", seen)
	})
}

// annotateRevision changes annotations of a live revision, in pairs; an empty value removes one.
func (u *user) annotateRevision(name string, pairs ...string) {
	u.Helper()
	u.wait(10*time.Second, "annotating "+name, func() error {
		var r servingv1.Revision
		if err := u.Kube.Get(u.Context(), keyOf(u.namespace, name), &r); err != nil {
			return err
		}
		for i := 0; i < len(pairs); i += 2 {
			if key := "autoscaling.knative.dev/" + pairs[i]; pairs[i+1] == "" {
				delete(r.Annotations, key)
			} else {
				r.Annotations[key] = pairs[i+1]
			}
		}
		return u.Kube.Update(u.Context(), &r)
	})
}

func (u *user) podAutoscaler(revision string) *autoscalingv1alpha1.PodAutoscaler {
	u.Helper()
	var pa autoscalingv1alpha1.PodAutoscaler
	if err := u.Kube.Get(u.Context(), keyOf(u.namespace, revision), &pa); err != nil {
		u.Fatalf("reading PodAutoscaler %s: %v", revision, err)
	}
	return &pa
}

// configureAutoscaler sets keys of config-autoscaler on a platform.
func (u *user) configureAutoscaler(data map[string]string) {
	u.Helper()
	u.wait(10*time.Second, fmt.Sprintf("configuring %v", data), func() error {
		key := client.ObjectKey{Namespace: "knative-serving", Name: "config-autoscaler"}
		var c corev1.ConfigMap
		err := u.Kube.Get(u.Context(), key, &c)
		if apierrors.IsNotFound(err) {
			c = corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Data: data}
			return u.Kube.Create(u.Context(), &c)
		}
		if err != nil {
			return err
		}
		if c.Data == nil {
			c.Data = map[string]string{}
		}
		maps.Copy(c.Data, data)
		return u.Kube.Update(u.Context(), &c)
	})
}

// TestMinScale is about min-scale: from the first moment, changed on a live revision, and while traffic moves to the next one.
func TestMinScale(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("least", annotate("min-scale", "2"), shortWindow())
	first := s.Status.LatestReadyRevisionName
	if n := u.ready(first); n < 2 {
		t.Errorf("ready with %d instances, want 2", n)
	}
	u.annotateRevision(first, "min-scale", "3")
	u.waitReadyPods(30*time.Second, first, 3)
	u.waitWhy(10*time.Second, first, "Scaled from 2 to 3: min-scale is 3")
	u.annotateRevision(first, "min-scale", "2")
	u.waitReadyPods(60*time.Second, first, 2)

	// The next revision takes its time; until it has its instances, the old one keeps its own.
	u.update("least", func(s *servingv1.Service) { env("START_DELAY", "3s")(s) })
	var second string
	u.wait(60*time.Second, "traffic has moved", func() error {
		before := u.ready(first)
		s, err := u.load("least")
		if err != nil {
			return err
		}
		second = s.Status.LatestCreatedRevisionName
		if s.Status.LatestReadyRevisionName != first {
			if n := u.ready(second); n < 2 {
				return fmt.Errorf("the new revision is ready with %d instances", n)
			}
			return nil
		}
		if before < 2 {
			t.Fatalf("the old revision has %d instances before the new one is ready, want 2", before)
		}
		return errors.New("the new revision is not ready")
	})
	// Nobody reaches the old revision any more, so that its least no longer counts.
	u.waitReadyPods(60*time.Second, first, 0)
	if n := u.ready(second); n != 2 {
		t.Errorf("the new revision has %d instances, want 2", n)
	}
}

func TestInitialScale(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("many", annotate("initial-scale", "3"), shortWindow())
	if n := u.ready(s.Status.LatestReadyRevisionName); n != 3 {
		t.Errorf("ready with %d instances, want 3", n)
	}
	u.waitZero("many")
}

func TestActivationScale(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("activated", annotate("activation-scale", "3"), shortWindow())
	revision := s.Status.LatestReadyRevisionName
	u.waitZero("activated")
	u.mustGet(s.Status.URL, "/")
	u.waitReadyPods(30*time.Second, revision, 3)
	u.waitWhy(10*time.Second, revision, "Scaled from 0 to 3", "activation-scale is 3")
}

// TestMaxScale overloads a revision that may not grow: nothing is lost, and it does not grow.
func TestMaxScale(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("most", annotate("max-scale", "2"), annotate("target-burst-capacity", "-1"), concurrency(1), shortWindow())
	revision := s.Status.LatestReadyRevisionName
	load := u.send(6, s.Status.URL, "/sleep?for=100ms")
	u.waitReadyPods(30*time.Second, revision, 2)
	u.waitWhy(20*time.Second, revision, "max-scale is 2")
	load.waitSent(u, 100)
	if n := len(u.pods("most")); n > 2 {
		t.Errorf("%d instances, want at most 2", n)
	}
	if sent, failures := load.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), sent, failures[0])
	}
}

// TestScaleDownDelay measures how long a revision without load is kept.
func TestScaleDownDelay(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("delayed", annotate("scale-down-delay", "12s"), annotate("target-burst-capacity", "0"), shortWindow())
	u.mustGet(s.Status.URL, "/")
	last := time.Now()
	u.waitPods(90*time.Second, "delayed", 0)
	// The window has to pass first, and then the delay.
	if kept := time.Since(last); kept < 12*time.Second {
		t.Errorf("the last instance went %s after the last request, want 12s at least", kept)
	}
}

// TestScaleToZeroIsPrompt is the bound that Knative promises: the window, the grace period and some seconds.
func TestScaleToZeroIsPrompt(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("prompt", shortWindow())
	u.mustGet(s.Status.URL, "/")
	last := time.Now()
	u.waitPods(60*time.Second, "prompt", 0)
	if after := time.Since(last); after < 5*time.Second || after > 36*time.Second {
		t.Errorf("at zero %s after the last request, want 6s to 36s", after)
	}
}

// TestRequestsPerSecond goes up, to zero, and up again, by the number of requests alone.
func TestRequestsPerSecond(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("rate", annotate("metric", "rps"), annotate("target", "10"), annotate("max-scale", "3"), shortWindow())
	revision := s.Status.LatestReadyRevisionName
	for range 2 {
		load := u.send(4, s.Status.URL, "/sleep?for=20ms")
		u.waitReadyPods(60*time.Second, revision, 3)
		if sent, failures := load.end(); len(failures) > 0 {
			t.Errorf("%d of %d requests failed: %s", len(failures), sent, failures[0])
		}
		u.waitZero("rate")
	}
	u.waitWhy(10*time.Second, revision, "requests per second on average", "7 per instance is the target")
}

// TestAutoscalingOfAllRevisions changes config-autoscaler, which needs a platform of its own.
func TestAutoscalingOfAllRevisions(t *testing.T) {
	t.Parallel()
	p, err := platform.Start("e2e-auto", 9)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			p.DumpLogs()
		}
		if err := p.Destroy(); err != nil {
			t.Error(err)
		}
	})
	u := newUser(t, p)
	u.must("image", "build", serverImage, "./server")

	u.configureAutoscaler(map[string]string{"enable-scale-to-zero": "false", "stable-window": "6s"})
	s := u.deploy("kept", annotate("initial-scale", "2"))
	kept := s.Status.LatestReadyRevisionName
	u.waitReadyPods(60*time.Second, kept, 1)
	began := time.Now()
	u.wait(60*time.Second, "the last instance has outlived two windows", func() error {
		if n := u.ready(kept); n != 1 {
			t.Fatalf("%d instances after %s, want the last to stay", n, time.Since(began))
		}
		if time.Since(began) < 12*time.Second {
			return errors.New("too early to tell")
		}
		return nil
	})
	u.configureAutoscaler(map[string]string{"enable-scale-to-zero": "true"})
	u.waitReadyPods(60*time.Second, kept, 0)
	u.configureAutoscaler(map[string]string{"min-scale": "2"})
	u.waitReadyPods(30*time.Second, kept, 2)
	u.configureAutoscaler(map[string]string{"min-scale": "0"})
	u.waitReadyPods(60*time.Second, kept, 0)

	// Without instances from the first moment on: ready all the same, and woken by the first request.
	none := u.service("none", annotate("initial-scale", "0"))
	if err := u.Kube.Create(t.Context(), none); err == nil || !strings.Contains(err.Error(), "initial-scale") {
		t.Errorf("initial-scale 0 where it is not allowed: %v", err)
	}
	u.configureAutoscaler(map[string]string{"allow-zero-initial-scale": "true"})
	u.wait(20*time.Second, "initial-scale 0 is allowed", func() error {
		return u.Kube.Create(t.Context(), u.service("none", annotate("initial-scale", "0")))
	})
	s = u.waitReady("none")
	if n := len(u.pods("none")); n != 0 {
		t.Errorf("ready with %d instances, want none", n)
	}
	u.mustGet(s.Status.URL, "/")

	u.configureAutoscaler(map[string]string{"pod-autoscaler-class": "hpa.autoscaling.knative.dev"})
	u.wait(20*time.Second, "a new service has the class of the cluster", func() error {
		if err := u.Kube.Create(t.Context(), u.service("classed")); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	})
	s = u.waitReady("classed")
	if class := u.podAutoscaler(s.Status.LatestReadyRevisionName).Class(); class != "hpa.autoscaling.knative.dev" {
		t.Errorf("class %s", class)
	}
}

// TestForeignAutoscaler is a revision that somebody else scales: its own autoscaler makes it ready, and we neither scale nor report.
func TestForeignAutoscaler(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.service("foreign", annotate("class", "autoscaler.example.com"), shortWindow())
	if err := u.Kube.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	const revision = "foreign-00001"
	u.waitReadyPods(60*time.Second, revision, 1)
	if got := u.podAutoscaler(revision).Status.Conditions; len(got) > 0 {
		t.Errorf("conditions %v, want none", got)
	}
	u.waitCondition("foreign", apis.ConditionReady, corev1.ConditionUnknown, "")

	// The test plays the autoscaler.
	scale := func(n int) { u.kubectl("scale", "deployment", revision+"-deployment", "--replicas", strconv.Itoa(n)) }
	pa := u.podAutoscaler(revision)
	pa.Status.InitializeConditions()
	pa.Status.ObservedGeneration, pa.Status.ServiceName, pa.Status.MetricsServiceName = pa.Generation, revision, revision+"-private"
	pa.Status.MarkSKSReady()
	pa.Status.MarkActive()
	pa.Status.MarkScaleTargetInitialized()
	if err := u.Kube.Status().Update(t.Context(), pa); err != nil {
		t.Fatal(err)
	}
	s = u.waitReady("foreign")
	u.mustGet(s.Status.URL, "/")
	scale(0)
	u.waitZero("foreign")
	answers := make(chan answer, 1)
	go func() {
		a, _ := u.get(s.Status.URL, "/")
		answers <- a
	}()
	u.wait(20*time.Second, "the request is parked", func() error { return u.parked(revision, 1) })
	if n := len(u.pods("foreign")); n != 0 {
		t.Errorf("%d instances were started by us", n)
	}
	scale(1)
	if a := <-answers; a.status != http.StatusOK {
		t.Errorf("the parked request was answered %d %q", a.status, a.body)
	}
}
