package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

const (
	classHPA = "hpa.autoscaling.knative.dev"
	classKPA = "kpa.autoscaling.knative.dev"
)

// requests says what each instance asks for.
func requests(name corev1.ResourceName, quantity string) option {
	return func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse(quantity)}
	}
}

// TestHPAByProcessor scales by what the containers really use, up and down.
func TestHPAByProcessor(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("busy", annotate("class", classHPA), annotate("metric", "cpu"), annotate("target", "50"), annotate("max-scale", "2"),
		annotate("window", "6s"), requests(corev1.ResourceCPU, "20m"))
	revision := s.Status.LatestReadyRevisionName
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := u.Kube.Get(t.Context(), keyOf(u.namespace, revision), &h); err != nil {
		t.Fatal(err)
	}
	if h.Spec.MaxReplicas != 2 || *h.Spec.MinReplicas != 1 || h.Spec.ScaleTargetRef.Name != revision+"-deployment" {
		t.Errorf("HorizontalPodAutoscaler %+v", h.Spec)
	}
	load := u.send(2, s.Status.URL, "/burn?for=200ms")
	u.waitReadyPods(90*time.Second, revision, 2)
	if sent, failures := load.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), sent, failures[0])
	}
	u.waitWhy(20*time.Second, revision, "Scaled from 1 to 2", "of what the instances request, 50 % is the target")
	u.waitReadyPods(90*time.Second, revision, 1)
	u.wait(20*time.Second, "the status follows", func() error {
		if pa := u.podAutoscaler(revision); !pa.Status.IsActive() || pa.Status.GetDesiredScale() != 1 || pa.Status.GetActualScale() != 1 {
			return fmt.Errorf("it is %+v", pa.Status)
		}
		return nil
	})
}

func TestHPAByMemory(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("big", annotate("class", classHPA), annotate("metric", "memory"), annotate("target", "30"), annotate("max-scale", "2"),
		annotate("window", "6s"), requests(corev1.ResourceMemory, "20Mi"))
	revision := s.Status.LatestReadyRevisionName
	u.mustGet(s.Status.URL, "/hold?mib=60")
	u.waitReadyPods(90*time.Second, revision, 2)
	u.waitWhy(20*time.Second, revision, "memory is", "per instance on average, 30Mi is the target")
}

// TestClassOfALiveRevision changes who scales a revision that runs.
func TestClassOfALiveRevision(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("switched", shortWindow(), requests(corev1.ResourceCPU, "20m"))
	revision := s.Status.LatestReadyRevisionName
	u.waitZero("switched")

	u.annotateRevision(revision, "class", classHPA, "metric", "cpu")
	u.waitReadyPods(30*time.Second, revision, 1)
	u.waitWhy(10*time.Second, revision, "Scaled from 0 to 1", "do not scale to zero")
	u.mustGet(s.Status.URL, "/")

	u.annotateRevision(revision, "class", classKPA, "metric", "concurrency")
	u.waitZero("switched")
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := u.Kube.Get(t.Context(), keyOf(u.namespace, revision), &h); !apierrors.IsNotFound(err) {
		t.Errorf("the HorizontalPodAutoscaler is left: %v", err)
	}
	u.mustGet(s.Status.URL, "/")
}

// TestTop is what `kubectl top` shows, and to whom.
func TestTop(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("seen", annotate("min-scale", "1"))
	u.mustGet(s.Status.URL, "/hold?mib=40")
	pod := u.pods("seen")[0].Name
	u.wait(30*time.Second, "the pod is measured", func() error {
		out, err := u.Weft("kubectl", "-n", u.namespace, "top", "pods", "--containers", "--no-headers")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var name, container, cpu string
		var mib int
		if _, err := fmt.Sscanf(out, "%s %s %s %dMi", &name, &container, &cpu, &mib); err != nil {
			return fmt.Errorf("reading what top shows, %q: %w", out, err)
		}
		if name != pod || container != "user-container" || mib < 40 || mib > 80 {
			return fmt.Errorf("top shows %q, want 40 MiB and some for %s", out, pod)
		}
		return nil
	})
	if out := u.kubectl("top", "pods", "-l", "serving.knative.dev/service=other", "--no-headers"); !strings.Contains(out, "No resources found") {
		t.Errorf("top with a selector of nothing shows %q", out)
	}
	if out := u.kubectl("top", "nodes", "--no-headers"); !strings.Contains(out, "Mi") || !strings.Contains(out, "%") {
		t.Errorf("top nodes shows %q", out)
	}
	if out := u.kubectl("get", "pods.metrics.k8s.io", pod); !strings.Contains(out, "WINDOW") || !strings.Contains(out, "Mi") {
		t.Errorf("get shows %q", out)
	}
	if out := u.kubectl("get", "apiservice", "v1beta1.metrics.k8s.io", "-o", "jsonpath={.status.conditions[0].status}"); !strings.HasPrefix(out, "True") {
		t.Errorf("the API service is available: %q", out)
	}

	// As every other resource, it is for those whom a role permits it.
	as := "--as=system:serviceaccount:" + u.namespace + ":default"
	if out, err := u.Weft("kubectl", "-n", u.namespace, "get", "pods.metrics.k8s.io", as); err == nil || !strings.Contains(out, "forbidden") {
		t.Errorf("without a role: %v, %q", err, out)
	}
	u.kubectl("create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount="+u.namespace+":default")
	u.wait(20*time.Second, "the role view permits it", func() error {
		out, err := u.Weft("kubectl", "-n", u.namespace, "get", "pods.metrics.k8s.io", as)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	summary := u.kubectl("get", "--raw", "/api/v1/nodes/"+shared.Name+"/proxy/metrics/resource")
	if !strings.Contains(summary, `container_memory_working_set_bytes{container="user-container",namespace="`+u.namespace+`"`) {
		t.Errorf("/metrics/resource has no figures of the container:\n%s", summary)
	}
}
