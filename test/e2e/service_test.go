package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func TestServiceAnswersAtItsURL(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("hello", env("VERSION", "one"))

	wantURL := fmt.Sprintf("http://hello.%s.localhost:%d", u.namespace, u.HTTPPort)
	if got := s.Status.URL.String(); got != wantURL {
		t.Errorf("status.url is %q, want %q", got, wantURL)
	}
	wantAddress := fmt.Sprintf("http://hello.%s.svc.cluster.local", u.namespace)
	if got := s.Status.Address.URL.String(); got != wantAddress {
		t.Errorf("status.address.url is %q, want %q", got, wantAddress)
	}
	if got, want := u.mustGet(s.Status.URL, "/"), "hello-00001 one\n"; got != want {
		t.Errorf("body is %q, want %q", got, want)
	}
	if s.Status.ObservedGeneration != s.Generation {
		t.Errorf("observedGeneration is %d, want %d", s.Status.ObservedGeneration, s.Generation)
	}

	out := u.kubectl("get", "ksvc,configuration,revision,route,kpa,deployment,pods")
	for _, want := range []string{
		"service.serving.knative.dev/hello", "configuration.serving.knative.dev/hello", "revision.serving.knative.dev/hello-00001",
		"route.serving.knative.dev/hello", "podautoscaler.autoscaling.internal.knative.dev/hello-00001", "deployment.apps/hello-00001-deployment",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl get does not show %s:\n%s", want, out)
		}
	}
}

func TestTrafficSplitAndTags(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	u.deploy("split", env("VERSION", "one"))
	u.update("split", func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Env[0].Value = "two"
		s.Spec.Traffic = []servingv1.TrafficTarget{
			{RevisionName: "split-00001", Percent: new(int64(80)), Tag: "current"},
			{RevisionName: "split-00002", Percent: new(int64(20)), Tag: "candidate"},
		}
	})
	var s *servingv1.Service
	u.wait(60*time.Second, "split into two revisions", func() (err error) {
		s, err = u.load("split")
		if err == nil && (!s.IsReady() || s.Status.ObservedGeneration != s.Generation || len(s.Status.Traffic) != 2) {
			err = fmt.Errorf("traffic %v, conditions %s", s.Status.Traffic, conditions(s))
		}
		return err
	})

	const total, workers = 5000, 20
	counts := make(chan map[string]int, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			seen := map[string]int{}
			for range total / workers {
				a, err := u.get(s.Status.URL, "/")
				if err != nil || a.status != http.StatusOK {
					t.Errorf("request during the split: %v, status %d", err, a.status)
					break
				}
				seen[strings.Fields(a.body)[0]]++
			}
			counts <- seen
		})
	}
	wg.Wait()
	close(counts)
	sum := map[string]int{}
	for seen := range counts {
		for name, n := range seen {
			sum[name] += n
		}
	}
	n := sum["split-00001"] + sum["split-00002"]
	share := 100 * float64(sum["split-00001"]) / float64(n)
	t.Logf("%d requests: %v, %.2f %% to the first", n, sum, share)
	if share < 78 || share > 82 {
		t.Errorf("the first revision got %.2f %%, want 80 within 2", share)
	}

	for _, target := range s.Status.Traffic {
		if got := u.mustGet(target.URL, "/"); !strings.HasPrefix(got, target.RevisionName+" ") {
			t.Errorf("tag %s at %s answered %q, want revision %s", target.Tag, target.URL, got, target.RevisionName)
		}
	}
}

func TestNewRevisionRollsWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("rolling", env("VERSION", "0"))
	flow := u.send(8, s.Status.URL, "/")
	for i := 1; i <= 3; i++ {
		flow.waitSent(u, 200)
		u.update("rolling", func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Env[0].Value = fmt.Sprint(i) })
		want := fmt.Sprintf("rolling-%05d %d\n", i+1, i)
		u.wait(60*time.Second, "the new revision answers", func() error {
			if a, err := u.get(s.Status.URL, "/"); err != nil || a.body != want {
				return answered(a, err)
			}
			return nil
		})
	}
	flow.waitSent(u, 200)
	if sent, failures := flow.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed during the roll-out, the first: %s", len(failures), sent, failures[0])
	}
}

func TestScaleToZeroAndBack(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("zero", annotate("window", "6s"))
	u.mustGet(s.Status.URL, "/")
	u.waitZero("zero")
	if s, err := u.load("zero"); err != nil || !s.IsReady() {
		t.Errorf("at zero the service is not ready: %v %s", err, conditions(s))
	}

	start := time.Now()
	if got, want := u.mustGet(s.Status.URL, "/"), "zero-00001 \n"; got != want {
		t.Errorf("cold answer is %q, want %q", got, want)
	}
	t.Logf("cold start took %s", time.Since(start).Round(time.Millisecond))

	events := u.kubectl("get", "events", "--field-selector", "involvedObject.kind=PodAutoscaler", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}")
	for _, want := range []string{"to 0", "to 1"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event on the PodAutoscaler says why it scaled %s:\n%s", want, events)
		}
	}
}

func TestTwentyServicesColdStartAtOnce(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	const n = 20
	services := make([]*servingv1.Service, n)
	for i := range n {
		services[i] = u.service(fmt.Sprintf("cold-%d", i), annotate("window", "6s"))
		if err := u.Kube.Create(u.Context(), services[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		services[i] = u.waitReady(services[i].Name)
	}
	for i := range n {
		u.waitZero(services[i].Name)
	}
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() {
			start := time.Now()
			a, err := u.get(s.Status.URL, "/")
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%s: %v, status %d %s", s.Name, err, a.status, a.body)
			}
			t.Logf("%s answered after %s", s.Name, time.Since(start).Round(time.Millisecond))
		})
	}
	wg.Wait()
}

func TestUpdateWhileParked(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	// The first instance takes its time to be ready, so that the request is parked while the service changes.
	s := u.deploy("parked", annotate("window", "6s"), env("VERSION", "one"), env("START_DELAY", "2s"))
	u.waitZero("parked")
	answers := make(chan answer, 1)
	go func() {
		a, err := u.get(s.Status.URL, "/sleep?for=500ms")
		if err != nil {
			a.body = err.Error()
		}
		answers <- a
	}()
	u.wait(10*time.Second, "the request is parked", func() error { return u.parked("parked-00001", 1) })
	u.update("parked", func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Env[0].Value = "two" })
	u.wait(10*time.Second, "the new revision exists while the request is parked", func() error {
		s, err := u.load("parked")
		if err != nil {
			return err
		}
		if s.Status.LatestCreatedRevisionName != "parked-00002" {
			return fmt.Errorf("the latest created revision is %q", s.Status.LatestCreatedRevisionName)
		}
		return u.parked("parked-00001", 1)
	})
	if a := <-answers; a.status != http.StatusOK || !strings.HasPrefix(a.body, "parked-0000") {
		t.Errorf("the parked request ended with %d %q, want 200", a.status, a.body)
	}
	u.wait(60*time.Second, "the update arrives", func() error {
		if a, err := u.get(s.Status.URL, "/"); err != nil || a.body != "parked-00002 two\n" {
			return answered(a, err)
		}
		return nil
	})
}

func TestDeleteWhileServing(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("deleted")
	started := make(chan answer, 1)
	go func() {
		a, err := u.get(s.Status.URL, "/sleep?for=2s")
		if err != nil {
			a.body = err.Error()
		}
		started <- a
	}()
	u.wait(10*time.Second, "the long request arrives", func() error {
		if got := u.mustGet(s.Status.URL, "/peak"); got != "1\n" {
			return fmt.Errorf("peak is %q", got)
		}
		return nil
	})
	u.kubectl("delete", "ksvc", "deleted", "--wait=false")
	if a := <-started; a.status != http.StatusOK {
		t.Errorf("the request in flight ended with %d %q, want 200", a.status, a.body)
	}
	u.wait(30*time.Second, "the host is gone", func() error {
		if a, err := u.get(s.Status.URL, "/"); err != nil || a.status != http.StatusNotFound {
			return answered(a, err)
		}
		return nil
	})
	u.waitZero("deleted")
}

func TestBadServiceIsRefusedWithItsFieldPath(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	for _, tc := range []struct {
		name, spec, want string
	}{
		{"no image", `{"template":{"spec":{"containers":[{"name":"a"}]}}}`, "spec.template.spec.containers[0].image"},
		{"percent", `{"template":{"spec":{"containers":[{"image":"x"}]}},"traffic":[{"latestRevision":true,"percent":90}]}`, "Traffic targets sum to 90, want 100"},
		{"concurrency", `{"template":{"spec":{"containerConcurrency":-1,"containers":[{"image":"x"}]}}}`, "spec.template.spec.containerConcurrency"},
		{"hostNetwork", `{"template":{"spec":{"hostNetwork":true,"containers":[{"image":"x"}]}}}`, "spec.template.spec.hostNetwork"},
		{"scale bounds", `{"template":{"metadata":{"annotations":{"autoscaling.knative.dev/min-scale":"x"}},"spec":{"containers":[{"image":"x"}]}}}`, "autoscaling.knative.dev/min-scale"},
	} {
		yaml := fmt.Sprintf(`{"apiVersion":"serving.knative.dev/v1","kind":"Service","metadata":{"name":"bad"},"spec":%s}`, tc.spec)
		out, err := u.WeftInput(yaml, "kubectl", "-n", u.namespace, "apply", "-f", "-")
		if err == nil || !strings.Contains(out, tc.want) {
			t.Errorf("%s: apply gave %v, want a refusal that names %q:\n%s", tc.name, err, tc.want, out)
		}
	}
}

func TestBrokenRevisionsReportWhyAndOldTrafficFlows(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("broken", env("VERSION", "good"))
	breakages := []struct {
		name, want string
		change     func(c *corev1.Container)
	}{
		{"missing image", "Unable to fetch image", func(c *corev1.Container) { c.Image = "dev.local/nowhere:v1" }},
		{"exits at start", "last words", func(c *corev1.Container) {
			c.Image = serverImage
			c.Env = append(c.Env, corev1.EnvVar{Name: "EXIT_AT_START", Value: "7"}, corev1.EnvVar{Name: "LAST_WORDS", Value: "these are my last words"})
		}},
	}
	for i, b := range breakages {
		u.update("broken", func(s *servingv1.Service) { b.change(&s.Spec.Template.Spec.Containers[0]) })
		revision := fmt.Sprintf("broken-%05d", i+2)
		u.wait(30*time.Second, b.name+" is reported", func() error {
			s, err := u.load("broken")
			if err != nil {
				return err
			}
			c := s.Status.GetCondition(apis.ConditionReady)
			if s.Status.LatestCreatedRevisionName != revision || c.Status != corev1.ConditionFalse || !strings.Contains(c.Message, b.want) {
				return fmt.Errorf("latest created %s, conditions %s", s.Status.LatestCreatedRevisionName, conditions(s))
			}
			return nil
		})
		if got := u.mustGet(s.Status.URL, "/"); got != "broken-00001 good\n" {
			t.Errorf("%s: traffic went to %q, want the old revision", b.name, got)
		}
	}
}
