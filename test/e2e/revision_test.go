package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// nowhere is a registry that refuses connections.
const nowhere = "127.0.0.1:1/nothing"

func (u *user) create(objects ...client.Object) {
	u.Helper()
	for _, o := range objects {
		if err := u.Kube.Create(u.Context(), o); err != nil {
			u.Fatalf("creating %T %s: %v", o, o.GetName(), err)
		}
	}
}

// waitRevision waits for a condition of a revision with one of these reasons and a message that contains text.
func (u *user) waitRevision(name string, kind apis.ConditionType, status corev1.ConditionStatus, text string, reasons ...string) *servingv1.Revision {
	u.Helper()
	var r *servingv1.Revision
	u.wait(60*time.Second, fmt.Sprintf("%s is %s=%s %q with %q", name, kind, status, reasons, text), func() (err error) {
		if r, err = u.revision(name); err != nil {
			return err
		}
		c := r.Status.GetCondition(kind)
		if c == nil || c.Status != status || !slices.Contains(reasons, c.Reason) || !strings.Contains(c.Message, text) {
			return fmt.Errorf("conditions %v", r.Status.Conditions)
		}
		return nil
	})
	return r
}

func cpu(request string) option {
	return func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Resources = corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(request)},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(request)},
		}
	}
}

func readiness(probe corev1.Probe) option {
	return func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].ReadinessProbe = &probe }
}

func mount(v corev1.VolumeSource) option {
	return func(s *servingv1.Service) {
		spec := &s.Spec.Template.Spec.PodSpec
		spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: v}}
		spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: true}}
	}
}

func httpProbe(path string, port int32) corev1.Probe {
	return corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(port)}}}
}

// failed checks that a Service says what its revision does.
func (u *user) failed(service, text string) {
	u.Helper()
	revision := service + "-00001"
	for _, want := range []string{"RevisionFailed: ", fmt.Sprintf("Revision %q failed with message: ", revision), text} {
		u.waitCondition(service, servingv1.ServiceConditionConfigurationsReady, corev1.ConditionFalse, want)
		u.waitCondition(service, apis.ConditionReady, corev1.ConditionFalse, want)
	}
}

func TestImageThatCannotBePulled(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	// A digest needs no registry before a node pulls it.
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "pull"}}
	c.Spec.Template.Spec.Containers = []corev1.Container{{Image: nowhere + "@sha256:" + strings.Repeat("0", 64)}}
	tagged := u.service("tagged")
	tagged.Spec.Template.Spec.Containers[0].Image = nowhere + ":v1"
	u.create(c, tagged)
	u.waitRevision("pull-00001", apis.ConditionReady, corev1.ConditionFalse, "Unable to fetch image", "ErrImagePull", "ImagePullBackOff")
	u.wait(10*time.Second, "the configuration says so", func() error {
		var c servingv1.Configuration
		err := u.Kube.Get(t.Context(), keyOf(u.namespace, "pull"), &c)
		if ready := c.Status.GetCondition(apis.ConditionReady); err == nil && (!ready.IsFalse() || ready.Reason != "RevisionFailed") {
			err = fmt.Errorf("conditions %v", c.Status.Conditions)
		}
		return err
	})
	u.waitRevision("tagged-00001", apis.ConditionReady, corev1.ConditionFalse, fmt.Sprintf("Unable to fetch image %q", nowhere+":v1"), "ContainerMissing")
	u.failed("tagged", "Unable to fetch image")
	u.waitCondition("tagged", servingv1.ServiceConditionRoutesReady, corev1.ConditionFalse, "RevisionMissing")
}

func TestContainerThatExits(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	words := env("LAST_WORDS", "no database at 100% of the hosts")
	u.create(
		u.service("tcp", env("EXIT_AT_START", "5"), words),
		u.service("http", env("EXIT_AT_START", "6"), words, readiness(httpProbe("/readyz", 0))),
		u.service("silent", env("EXIT_AT_START", "0")),
	)
	const want = "Container failed with: no database at 100% of the hosts"
	for name, reason := range map[string]string{"tcp": "ExitCode5", "http": "ExitCode6"} {
		r := u.waitRevision(name+"-00001", servingv1.RevisionConditionContainerHealthy, corev1.ConditionFalse, want, reason)
		if got := r.Status.GetCondition(apis.ConditionReady).Message; got != want {
			t.Errorf("%s: message is %q, want %q", name, got, want)
		}
		u.failed(name, want)
	}
	u.waitRevision("silent-00001", apis.ConditionReady, corev1.ConditionFalse, "container exited with no error", "ExitCode0")
}

func TestPodThatFitsNowhere(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	u.create(u.service("big", cpu("50")))
	u.waitRevision("big-00001", apis.ConditionReady, corev1.ConditionFalse, "Insufficient cpu", "Unschedulable")
	u.failed("big", "Insufficient cpu")
}

func TestQuotaAndLimits(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	u.create(
		&corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "quota"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}},
		},
		&corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "limits"},
			Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type:    corev1.LimitTypeContainer,
				Default: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("40m")},
				Max:     corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
			}}},
		},
	)
	u.deploy("small", annotate("min-scale", "1"))
	if pods := u.pods("small"); len(pods) != 1 || pods[0].Spec.Containers[0].Resources.Limits.Cpu().String() != "40m" {
		t.Errorf("the pods of a service without limits are %v, want one with the default of the LimitRange", pods)
	}
	u.create(u.service("over", cpu("200m")), u.service("beyond", cpu("2")))
	u.waitRevision("over-00001", apis.ConditionReady, corev1.ConditionFalse, "forbidden: exceeded quota", "FailedCreate")
	u.failed("over", "forbidden: exceeded quota")
	u.waitRevision("beyond-00001", apis.ConditionReady, corev1.ConditionFalse, "maximum cpu usage per Container is 1, but limit is 2", "FailedCreate")

	u.kubectl("patch", "resourcequota", "quota", "--type=merge", "-p", `{"spec":{"hard":{"cpu":"1"}}}`)
	u.waitReady("over")
}

func TestProgressDeadline(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	deadline := func(s *servingv1.Service) {
		s.Spec.Template.Annotations[serving.ProgressDeadlineAnnotationKey] = "5s"
	}
	u.create(u.service("never", env("NEVER_READY", "1"), readiness(httpProbe("/readyz", 0)), annotate("window", "6s"), deadline))
	u.waitRevision("never-00001", apis.ConditionReady, corev1.ConditionFalse, "", "ProgressDeadlineExceeded")
	u.waitRevision("never-00001", servingv1.RevisionConditionContainerHealthy, corev1.ConditionUnknown, `Container "user-container" is running`, "ContainerNotReady")
	// Then the autoscaler gives up, and says so too.
	u.waitRevision("never-00001", apis.ConditionReady, corev1.ConditionFalse, "Initial scale was never achieved", "ProgressDeadlineExceeded")
	u.waitRevision("never-00001", servingv1.RevisionConditionActive, corev1.ConditionFalse, "", "TimedOut")
	u.waitZero("never")
}

// TestRecovery removes the causes of failures and wants the same revisions to become ready.
func TestRecovery(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	from := func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}},
		}}
	}
	account := func(s *servingv1.Service) { s.Spec.Template.Spec.ServiceAccountName = "later" }
	u.create(u.service("environment", from), u.service("volume", mount(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "later"}})),
		u.service("account", account))
	u.waitRevision("environment-00001", apis.ConditionReady, corev1.ConditionFalse, `configmaps "later" not found`, "CreateContainerConfigError")
	u.waitRevision("volume-00001", apis.ConditionReady, corev1.ConditionUnknown, `secrets "later" not found`, "ContainerCreating")
	u.waitCondition("volume", apis.ConditionReady, corev1.ConditionUnknown, `secrets "later" not found`)
	u.waitRevision("account-00001", apis.ConditionReady, corev1.ConditionFalse, `serviceaccount "later" not found`, "FailedCreate")
	meta := metav1.ObjectMeta{Namespace: u.namespace, Name: "later"}
	u.create(&corev1.ConfigMap{ObjectMeta: meta}, &corev1.Secret{ObjectMeta: meta}, &corev1.ServiceAccount{ObjectMeta: meta})
	for _, name := range []string{"environment", "volume", "account"} {
		if s := u.waitReady(name); s.Status.LatestReadyRevisionName != name+"-00001" {
			t.Errorf("%s is ready by revision %q, want the one that had failed", name, s.Status.LatestReadyRevisionName)
		}
	}
}

// waitReplicas waits until a revision reports so many replicas, as wanted and as there.
func (u *user) waitReplicas(name string, want int32) {
	u.Helper()
	u.wait(60*time.Second, fmt.Sprintf("%s has %d replicas", name, want), func() error {
		r, err := u.revision(name)
		if err != nil {
			return err
		}
		actual, desired := r.Status.ActualReplicas, r.Status.DesiredReplicas
		if actual == nil || desired == nil || *actual != want || *desired != want {
			return fmt.Errorf("replicas are %v of %v", actual, desired)
		}
		return nil
	})
}

func TestRevisionStatus(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	service := u.deploy("told", annotate("window", "6s"))
	flow := u.send(1, service.Status.URL, "/")
	r := u.waitRevision("told-00001", servingv1.RevisionConditionActive, corev1.ConditionTrue, "", "")
	if len(r.Status.ContainerStatuses) != 1 || r.Status.ContainerStatuses[0].Name != "user-container" {
		t.Errorf("containerStatuses are %v", r.Status.ContainerStatuses)
	}
	u.waitReplicas("told-00001", 1)
	flow.end()
	u.waitZero("told")
	r = u.waitRevision("told-00001", servingv1.RevisionConditionActive, corev1.ConditionFalse, "", "NoTraffic")
	if c := r.Status.GetCondition(servingv1.RevisionConditionActive); c.Severity != apis.ConditionSeverityInfo {
		t.Errorf("the severity of Active is %q, want Info", c.Severity)
	}
	if !r.IsReady() {
		t.Errorf("at zero the revision is not ready: %v", r.Status.Conditions)
	}
	u.waitReplicas("told-00001", 0)
}

func TestDryRunTriesThePod(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	bad := u.service("bad")
	bad.Spec.Template.Spec.Containers[0].Name = "&InvalidValue"
	err := u.Kube.Create(t.Context(), bad, client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "validation callback failed: dry run failed with") || !strings.Contains(err.Error(), "spec.containers[0].name") {
		t.Errorf("a dry run of a pod that cannot be answered %v", err)
	}
	if err := u.Kube.Create(t.Context(), u.service("good"), client.DryRunAll); err != nil {
		t.Errorf("a dry run of a good service: %v", err)
	}
	if _, err := u.load("good"); err == nil {
		t.Error("a dry run has left something")
	}
}

// TestGatedPodFields opens the gates of config-features, and so runs alone.
func TestGatedPodFields(t *testing.T) {
	u := newUser(t, shared)
	withInit := func(exit string) option {
		return func(s *servingv1.Service) {
			s.Spec.Template.Spec.InitContainers = []corev1.Container{{Image: serverImage, Env: []corev1.EnvVar{
				{Name: "EXIT_AT_START", Value: exit}, {Name: "LAST_WORDS", Value: "no schema"},
			}}}
		}
	}
	if err := u.Kube.Create(t.Context(), u.service("closed", withInit("0"))); err == nil || !strings.Contains(err.Error(), "spec.template.spec.initContainers") {
		t.Errorf("with the gate closed, an init container is answered %v, want a refusal", err)
	}
	u.configure("config-features", map[string]string{
		"kubernetes.podspec-init-containers": "enabled", "multi-container-probing": "enabled", "kubernetes.podspec-volumes-csi": "enabled",
		"kubernetes.podspec-persistent-volume-claim": "enabled", "kubernetes.podspec-hostaliases": "enabled", "secure-pod-defaults": "Enabled",
	})
	hosts := func(s *servingv1.Service) {
		s.Spec.Template.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"seven.example.com"}}}
	}
	// The gates are open when the webhook has seen them.
	u.wait(10*time.Second, "the gates are open", func() error {
		return u.Kube.Create(t.Context(), u.service("init", withInit("0"), hosts, annotate("min-scale", "1")))
	})
	sidecar := func(s *servingv1.Service) {
		c := &s.Spec.Template.Spec.Containers
		(*c)[0].Name, (*c)[0].Ports = "front", []corev1.ContainerPort{{ContainerPort: 8080}}
		probe := httpProbe("/readyz", 9999)
		*c = append(*c, corev1.Container{Name: "side", Image: serverImage, ReadinessProbe: &probe, Env: []corev1.EnvVar{
			{Name: "LISTEN_PORT", Value: "9999"}, {Name: "START_DELAY", Value: "4s"},
		}})
	}
	u.create(
		u.service("initfails", withInit("3")), u.service("sidecar", sidecar, annotate("min-scale", "1")),
		u.service("csi", mount(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "none.example.com", ReadOnly: new(true)}})),
		u.service("claim", mount(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "none", ReadOnly: true}})),
	)
	s := u.waitReady("init")
	pod := u.pods("init")[0]
	if security := pod.Spec.Containers[0].SecurityContext; security == nil || security.RunAsNonRoot == nil || !*security.RunAsNonRoot {
		t.Errorf("with secure-pod-defaults the container's security is %v, want runAsNonRoot", security)
	}
	if got := u.mustGet(s.Status.URL, "/file?path=/etc/hosts"); !strings.Contains(got, "192.0.2.7\tseven.example.com") {
		t.Errorf("/etc/hosts lacks the alias:\n%s", got)
	}
	if r, err := u.revision("init-00001"); err != nil || len(r.Status.InitContainerStatuses) != 1 {
		t.Errorf("initContainerStatuses are %v, %v", r.Status.InitContainerStatuses, err)
	}
	u.waitRevision("initfails-00001", apis.ConditionReady, corev1.ConditionFalse, "Container failed with: no schema", "ExitCode3")
	u.waitReady("sidecar")
	if early := readyBefore(u.pods("sidecar"), "side", 3*time.Second); early != "" {
		t.Errorf("the pod was ready %s after its sidecar had started, which needs 4s", early)
	}
	u.waitRevision("csi-00001", apis.ConditionReady, corev1.ConditionUnknown, `the type of volume "v" is not supported by this node`, "ContainerCreating")
	u.waitRevision("claim-00001", apis.ConditionReady, corev1.ConditionFalse, `persistentvolumeclaim "none" not found`, "Unschedulable")
}

// readyBefore says how long after the start of one of its containers the first of pods was ready, when that is less than limit.
// The API counts whole seconds.
func readyBefore(pods []corev1.Pod, container string, limit time.Duration) string {
	for _, pod := range pods {
		for _, condition := range pod.Status.Conditions {
			for _, c := range pod.Status.ContainerStatuses {
				if condition.Type != corev1.PodReady || c.Name != container || c.State.Running == nil {
					continue
				}
				if after := condition.LastTransitionTime.Sub(c.State.Running.StartedAt.Time); after < limit {
					return after.String()
				}
				return ""
			}
		}
	}
	return "unknown time"
}

// TestDeploymentSettings edits config-deployment and config-observability, and so runs alone.
func TestDeploymentSettings(t *testing.T) {
	u := newUser(t, shared)
	u.configure("config-observability", map[string]string{"logging.revision-url-template": "http://logs.example.com/${REVISION_UID}"})
	u.configure("config-deployment", map[string]string{"progress-deadline": "7m", "default-affinity-type": "none", "pod-is-always-schedulable": "true"})
	u.create(u.service("big", cpu("50")))
	var r *servingv1.Revision
	u.wait(30*time.Second, "the revision has its settings", func() (err error) {
		if r, err = u.revision("big-00001"); err == nil && r.Status.LogURL != "http://logs.example.com/"+string(r.UID) {
			err = fmt.Errorf("the URL of its logs is %q", r.Status.LogURL)
		}
		return err
	})
	u.wait(30*time.Second, "its pod is not schedulable", func() error {
		pods := u.pods("big")
		if len(pods) != 1 || len(pods[0].Status.Conditions) == 0 || pods[0].Status.Conditions[0].Reason != "Unschedulable" {
			return fmt.Errorf("pods are %v", pods)
		}
		if seconds := *pods[0].Spec.TerminationGracePeriodSeconds; seconds != 300 {
			return fmt.Errorf("the grace period is %d s", seconds)
		}
		if pods[0].Spec.Affinity != nil {
			return fmt.Errorf("the affinity is %v", pods[0].Spec.Affinity)
		}
		return nil
	})
	out := u.kubectl("get", "deployment", "big-00001-deployment", "-o", "jsonpath={.spec.progressDeadlineSeconds}")
	if out != "420" {
		t.Errorf("progressDeadlineSeconds is %s, want 420", out)
	}
	u.waitRevision("big-00001", apis.ConditionReady, corev1.ConditionUnknown, "", "Deploying")
}

// TestDestroyedPod deletes pods with and without requests. Pods may take 300 s to end, and must not need them.
func TestDestroyedPod(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("destroyed", annotate("min-scale", "1"))
	answers := make(chan answer, 1)
	go func() {
		a, err := u.get(s.Status.URL, "/sleep?for=12s")
		if err != nil {
			a.body = err.Error()
		}
		answers <- a
	}()
	u.wait(10*time.Second, "the request arrives", func() error {
		if got := u.mustGet(s.Status.URL, "/peak"); got != "1\n" {
			return fmt.Errorf("peak is %q", got)
		}
		return nil
	})
	busy := u.pods("destroyed")[0].Name
	u.kubectl("delete", "pod", busy, "--wait=false")
	u.wait(30*time.Second, "another instance answers", func() error {
		if a, err := u.get(s.Status.URL, "/hostname"); err != nil || a.status != http.StatusOK || a.body == busy+"\n" {
			return answered(a, err)
		}
		return nil
	})
	if a := <-answers; a.status != http.StatusOK || a.body != "destroyed-00001\n" {
		t.Errorf("the request in flight ended with %d %q, want 200", a.status, a.body)
	}

	u.wait(30*time.Second, "one idle instance", func() error {
		if pods := u.pods("destroyed"); len(pods) != 1 || pods[0].Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%d pods", len(pods))
		}
		return nil
	})
	start := time.Now()
	u.kubectl("delete", "pod", u.pods("destroyed")[0].Name, "--wait=true", "--timeout=60s")
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("an idle pod took %s to go", took)
	}
}

// TestConfigurationDeletedMidRequest removes everything below a request that is being answered.
func TestConfigurationDeletedMidRequest(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	c := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "inflight"}}
	c.Spec.Template.Spec.Containers = []corev1.Container{{Image: serverImage}}
	route := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: "inflight"}}
	route.Spec.Traffic = []servingv1.TrafficTarget{{ConfigurationName: "inflight", Percent: new(int64(100))}}
	u.create(c, route)
	u.kubectl("wait", "--for=condition=Ready", "route/inflight", "--timeout=60s")
	if err := u.Kube.Get(t.Context(), client.ObjectKeyFromObject(route), route); err != nil {
		t.Fatal(err)
	}
	answers := make(chan answer, 1)
	go func() {
		a, err := u.get(route.Status.URL, "/sleep?for=8s")
		if err != nil {
			a.body = err.Error()
		}
		answers <- a
	}()
	u.wait(10*time.Second, "the request arrives", func() error {
		if got := u.mustGet(route.Status.URL, "/peak"); got != "1\n" {
			return fmt.Errorf("peak is %q", got)
		}
		return nil
	})
	u.kubectl("delete", "configuration", "inflight")
	u.waitGone("inflight-00001")
	if a := <-answers; a.status != http.StatusOK || a.body != "inflight-00001\n" {
		t.Errorf("the request in flight ended with %d %q, want 200", a.status, a.body)
	}
}
