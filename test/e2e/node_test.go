package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestLogsExecAndPortForward(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("tools", annotate("min-scale", "1"))
	pod := u.pods("tools")[0].Name
	if out := u.kubectl("logs", pod, "-c", "user-container"); !strings.Contains(out, "listening on 8080") {
		t.Errorf("logs show %q", out)
	}
	out, err := u.WeftInput("", "kubectl", "-n", u.namespace, "exec", pod, "--", "/ko-app/server", "--help")
	if err == nil || !strings.Contains(out, "address already in use") {
		t.Errorf("a second server in the container ended with %v, want its own error about the port:\n%s", err, out)
	}
	if out, err := u.Weft("kubectl", "-n", u.namespace, "exec", pod, "--", "/no/such/file"); err == nil {
		t.Errorf("exec of a missing file succeeded: %s", out)
	}

	following := exec.CommandContext(t.Context(), filepath.Join(u.Bin, "weft"), "kubectl", "-n", u.namespace, "logs", "-f", pod)
	following.Env = append(os.Environ(), "WEFT_STATE_DIR="+u.StateDir, "KUBECONFIG=")
	var followed strings.Builder
	following.Stdout = &followed
	if err := following.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = u.do(t.Context(), http.MethodPost, s.Status.URL, "/exit?code=0", nil)
	if err := following.Wait(); err != nil {
		t.Errorf("logs -f: %v", err)
	}
	if !strings.Contains(followed.String(), "exiting on request") {
		t.Errorf("logs -f ended before the container's last line:\n%s", followed.String())
	}

	u.waitReady("tools")
	u.wait(30*time.Second, "the container is back", func() error {
		_, err := u.get(s.Status.URL, "/")
		return err
	})
	forward := exec.CommandContext(t.Context(), filepath.Join(u.Bin, "weft"), "kubectl", "-n", u.namespace, "port-forward", "pod/"+pod, ":8080")
	forward.Env = following.Env
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = forward.Process.Signal(syscall.SIGTERM)
		_ = forward.Wait()
	}()
	buf := make([]byte, 200)
	n, err := stdout.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindSubmatch(buf[:n])
	if match == nil {
		t.Fatalf("port-forward printed %q", buf[:n])
	}
	response, err := http.Get("http://127.0.0.1:" + string(match[1]) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); !strings.HasPrefix(string(body), "tools-00001") {
		t.Errorf("the forwarded port answered %q", body)
	}
}

func TestPodSeesItsConfiguration(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	for _, object := range []client.Object{
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: u.namespace}, Data: map[string]string{"color": "green", "app.conf": "a=1\n"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: u.namespace}, StringData: map[string]string{"token": "s3cret"}},
	} {
		if err := u.Kube.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	s := u.service("configured", annotate("min-scale", "1"))
	spec := &s.Spec.Template.Spec.PodSpec
	spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
		{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}, Key: "token"}}},
		{Name: "BOTH", Value: "$(COLOR)-$(TOKEN)"},
	}
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "settings", MountPath: "/etc/settings", ReadOnly: true},
		{Name: "keys", MountPath: "/etc/keys", ReadOnly: true},
		{Name: "identity", MountPath: "/var/identity", ReadOnly: true},
		{Name: "scratch", MountPath: "/scratch"},
	}
	expiry := int64(3600)
	spec.Volumes = []corev1.Volume{
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
		{Name: "keys", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys"}}},
		{Name: "identity", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "tests", ExpirationSeconds: &expiry, Path: "token"}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
		}}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	if err := u.Kube.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s = u.waitReady("configured")

	var environment []string
	if err := json.Unmarshal([]byte(u.mustGet(s.Status.URL, "/env")), &environment); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"COLOR=green", "TOKEN=s3cret", "BOTH=green-s3cret", "PORT=8080", "K_SERVICE=configured", "K_CONFIGURATION=configured", "K_REVISION=configured-00001"} {
		if !slices.Contains(environment, want) {
			t.Errorf("the environment lacks %s: %q", want, environment)
		}
	}
	for path, want := range map[string]string{
		"/etc/settings/app.conf": "a=1\n", "/etc/keys/token": "s3cret", "/var/identity/labels": `serving.knative.dev/service="configured"`, "/var/identity/token": "ey",
		"/etc/resolv.conf": "nameserver 10.211.0.1", "/var/run/secrets/kubernetes.io/serviceaccount/namespace": u.namespace,
	} {
		if got := u.mustGet(s.Status.URL, "/file?path="+path); !strings.Contains(got, want) {
			t.Errorf("%s is %q, want it to contain %q", path, got, want)
		}
	}

	// A change of the ConfigMap arrives in the running container.
	u.kubectl("patch", "configmap", "settings", "--type=merge", "-p", `{"data":{"app.conf":"a=2\n"}}`)
	u.wait(90*time.Second, "the volume follows the ConfigMap", func() error {
		if got := u.mustGet(s.Status.URL, "/file?path=/etc/settings/app.conf"); got != "a=2\n" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

func TestPlainPodsAndServices(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	labels := map[string]string{"app": "plain"}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: u.namespace, Labels: labels}}
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "prepare", Image: serverImage, Env: []corev1.EnvVar{{Name: "EXIT_AT_START", Value: "0"}, {Name: "LAST_WORDS", Value: "prepared"}},
	}}
	pod.Spec.Containers = []corev1.Container{{
		Name: "main", Image: serverImage, Env: []corev1.EnvVar{{Name: "PORT", Value: "8000"}, {Name: "VERSION", Value: "plain"}}, Ports: []corev1.ContainerPort{{ContainerPort: 8000}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8000)}}, PeriodSeconds: 1},
	}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: u.namespace}}
	service.Spec.Selector = labels
	service.Spec.Ports = []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8000)}}
	for _, object := range []client.Object{service, pod} {
		if err := u.Kube.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	u.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/plain")
	if out := u.kubectl("logs", "plain", "-c", "prepare"); !strings.Contains(out, "prepared") {
		t.Errorf("the init container's log is %q", out)
	}
	caller := u.deploy("caller")
	for _, host := range []string{"plain", "plain." + u.namespace + ".svc.cluster.local"} {
		u.wait(10*time.Second, "a pod reaches the Service by "+host, func() error {
			a, err := u.get(caller.Status.URL, "/fetch?url=http://"+host+"/")
			if err != nil || a.body != " plain\n" {
				return answered(a, err)
			}
			return nil
		})
	}
	if err := u.Kube.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
		t.Fatal(err)
	}
	response, err := http.Get("http://" + service.Spec.ClusterIP + "/")
	if err != nil {
		t.Fatalf("the host cannot reach the cluster IP: %v", err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); string(body) != " plain\n" {
		t.Errorf("the cluster IP answered %q", body)
	}
}

func TestWaitingReasons(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	for _, tc := range []struct {
		name, image, policy string
		want                []string
	}{
		{"absent", "127.0.0.1:1/none/such:v1", "IfNotPresent", []string{"ErrImagePull", "ImagePullBackOff"}},
		{"never", "example.com/never:v1", "Never", []string{"ErrImageNeverPull"}},
		{"invalid", "UPPER/Case:v1", "IfNotPresent", []string{"InvalidImageName"}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: tc.name, Namespace: u.namespace}}
		pod.Spec.Containers = []corev1.Container{{Name: "main", Image: tc.image, ImagePullPolicy: corev1.PullPolicy(tc.policy)}}
		if err := u.Kube.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		for _, want := range tc.want {
			u.wait(60*time.Second, tc.name+" shows "+want, func() error {
				if err := u.Kube.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
					return err
				}
				for _, c := range pod.Status.ContainerStatuses {
					if c.State.Waiting != nil && c.State.Waiting.Reason == want {
						return nil
					}
				}
				return fmt.Errorf("status %+v", pod.Status.ContainerStatuses)
			})
		}
	}
}
