package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// waitExplained waits until the first line of an explanation is as wanted.
func (u *user) waitExplained(target, want string) {
	u.Helper()
	u.wait(60*time.Second, target+" is explained", func() error {
		out, err := u.Weft("explain", target, "-n", u.namespace)
		if err != nil {
			return fmt.Errorf("%w:\n%s", err, out)
		}
		if first, _, _ := strings.Cut(out, "\n"); !strings.Contains(first, want) {
			return fmt.Errorf("want a first line with %q:\n%s", want, out)
		}
		return nil
	})
}

func TestExplainNamesTheFirstBrokenLink(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	taken := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "taken", Namespace: u.namespace}}
	taken.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	if err := u.Kube.Create(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	container := func(change func(*corev1.Container)) option {
		return func(s *servingv1.Service) { change(&s.Spec.Template.Spec.Containers[0]) }
	}
	situations := []struct {
		name, want string
		options    []option
	}{
		{"image", `image "dev.local/nowhere:v1" cannot be pulled: image is local and not present`, []option{
			container(func(c *corev1.Container) { c.Image = "dev.local/nowhere:v1" }),
		}},
		{"registry", `image "127.0.0.1:1/none:v1" cannot be found: `, []option{
			container(func(c *corev1.Container) { c.Image = "127.0.0.1:1/none:v1" }),
		}},
		{"exits", "container user-container ends with exit code 7: cannot reach the database", []option{
			env("EXIT_AT_START", "7"), env("LAST_WORDS", "cannot reach the database"),
		}},
		{"probe", "the readiness probe of container user-container fails: HTTP probe failed with statuscode: 503", []option{
			env("NEVER_READY", "1"), container(func(c *corev1.Container) {
				c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(0)}}}
			}),
		}},
		{"port", "connection refused", []option{env("LISTEN_PORT", "7777")}},
		{"huge", "no node has room for the pod: 0/1 nodes are available: 1 Insufficient cpu", []option{container(func(c *corev1.Container) {
			c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: quantity("500")}
		})}},
		{"settings", `container user-container refers to something that is missing: configmaps "absent" not found`, []option{container(func(c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "absent"}}}}
		})}},
		{"volume", `a volume cannot be mounted: MountVolume.SetUp failed for volume "keys" : secrets "absent" not found`, []option{func(s *servingv1.Service) {
			spec := &s.Spec.Template.Spec
			spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "keys", MountPath: "/keys"}}
			spec.Volumes = []corev1.Volume{{Name: "keys", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent"}}}}
		}}},
		{"split", `the traffic names revision "split-00009", which does not exist`, []option{func(s *servingv1.Service) {
			s.Spec.Traffic = []servingv1.TrafficTarget{{RevisionName: "split-00009", Percent: new(int64(100))}}
		}}},
		{"taken", `the Kubernetes Service "taken", which is not the route's, holds its name`, nil},
	}
	for _, s := range situations {
		if err := u.Kube.Create(t.Context(), u.service(s.name, s.options...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range situations {
		u.waitExplained("ksvc/"+s.name, "service/"+s.name+" is not ready: ")
		u.waitExplained("ksvc/"+s.name, s.want)
	}
	if out, err := u.Weft("explain", "ksvc/porte", "-n", u.namespace); err == nil || !strings.Contains(out, `there is no service "porte" in namespace`) || !strings.Contains(out, `did you mean "port"?`) {
		t.Errorf("a service that does not exist is explained with %v:\n%s", err, out)
	}
}

func TestExplainSaysWhyThereAreSoManyInstances(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("busy", annotate("window", "6s"), annotate("target", "1"), annotate("max-scale", "3"))
	flow := u.send(6, s.Status.URL, "/sleep?for=200ms")
	u.wait(60*time.Second, "load is explained", func() error {
		out := u.must("explain", "ksvc/busy", "-n", u.namespace)
		for _, want := range []string{"service/busy is ready at " + s.Status.URL.String(), "max-scale is 3, and ", "requests at a time on average", "100 % to busy-00001 (latest)"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("it does not say %q:\n%s", want, out)
			}
		}
		return nil
	})
	if sent, failures := flow.end(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent, failures[0])
	}
	u.waitZero("busy")
	u.waitExplained("revision/busy-00001", "revision/busy-00001 is ready, 0 instances")

	// Events and the PodAutoscaler say the same to those who have kubectl only.
	reason := u.kubectl("get", "kpa", "busy-00001", "-o", `jsonpath={.status.annotations.weft\.dev/scale-reason}`)
	if want := "to 0: no request for 6s"; !strings.HasSuffix(reason, want) {
		t.Errorf("the PodAutoscaler's reason is %q, want it to end with %q", reason, want)
	}
	for _, command := range [][]string{{"describe", "kpa", "busy-00001"}, {"get", "events"}} {
		if out := u.kubectl(command...); !strings.Contains(out, reason) || !strings.Contains(out, "Scaled from 1 to ") {
			t.Errorf("kubectl %s does not show each change of scale, %q among them:\n%s", strings.Join(command, " "), reason, out)
		}
	}
	out := u.kubectl("describe", "ksvc", "busy")
	for _, want := range []string{`Created Configuration "busy"`, `Created Route "busy"`} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl describe ksvc does not show the event %q:\n%s", want, out)
		}
	}

	var report struct {
		State string
		Links []struct{ Kind, State string }
	}
	if err := json.Unmarshal([]byte(u.must("explain", "service", "busy", "-n", u.namespace, "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.State != "ok" || len(report.Links) < 5 {
		t.Errorf("the report in JSON is %+v, want ok and the links of the chain", report)
	}
}
