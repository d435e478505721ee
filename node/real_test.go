package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"github.com/weft-dev/weft/internal/instance"
	"github.com/weft-dev/weft/node"
	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/sandbox"
)

const deadline = 30 * time.Second

// machine is a node agent with real containers over an API in memory.
type machine struct {
	t        *testing.T
	client   *fake.Clientset
	instance instance.Instance
	runtime  *container.OCI
	pki      *authority
	stop     func()
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, client: fake.NewClientset(), instance: newInstance(t), pki: newAuthority(t)}
	var b [1]byte
	_, _ = rand.Read(b[:])
	m.instance.PodCIDR = netip.MustParsePrefix(fmt.Sprintf("10.231.%d.0/24", b[0]))
	if err := os.Symlink(filepath.Join(built(), "images"), m.instance.Path("images")); err != nil {
		t.Fatal(err)
	}
	m.client.PrependReactor("create", "serviceaccounts", func(a kubetesting.Action) (bool, runtime.Object, error) {
		return a.GetSubresource() == "token", &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
			Token: "the-token", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
		}}, nil
	})
	t.Cleanup(func() {
		m.stop()
		ctx := context.WithoutCancel(t.Context())
		options := container.Options{Instance: m.instance, ShimPath: filepath.Join(built(), "weft-shim")}
		if err := errors.Join(container.RemoveAll(ctx, options), sandbox.RemoveAll(ctx, m.instance)); err != nil {
			t.Error(err)
		}
	})
	var err error
	m.runtime, err = container.NewRuntime(container.Options{Instance: m.instance, ShimPath: filepath.Join(built(), "weft-shim")})
	if err != nil {
		t.Fatal(err)
	}
	m.start()
	return m
}

// start starts a process of the agent; stop ends it as a signal would, with all containers left running.
func (m *machine) start() {
	m.t.Helper()
	images, err := image.Open(m.instance.Path("images"), image.Options{})
	if err != nil {
		m.t.Fatal(err)
	}
	pool, err := sandbox.NewPool(sandbox.Options{Instance: m.instance, Size: 2})
	if err != nil {
		m.t.Fatal(err)
	}
	agent, err := node.New(node.Options{
		Instance: m.instance, NodeName: "node", Client: m.client, Images: images, Sandboxes: pool, Runtime: m.runtime,
		ServerTLS: m.pki.server(m.t, m.instance.Gateway().AsSlice()), BackoffBase: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(testWriter{m.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	var parts sync.WaitGroup
	for name, part := range map[string]func(context.Context) error{"pool": pool.Run, "monitors": m.runtime.Run, "agent": agent.Run} {
		parts.Go(func() {
			if err := part(ctx); err != nil {
				m.t.Errorf("running the %s: %v", name, err)
			}
		})
	}
	m.stop = sync.OnceFunc(func() { cancel(); parts.Wait() })
	m.await("registration", func() bool {
		_, err := m.client.CoreV1().Nodes().Get(m.t.Context(), "node", metav1.GetOptions{})
		return err == nil
	})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// await polls until cond is true: the API in memory has no way to wait for a state.
func (m *machine) await(what string, cond func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			m.t.Fatalf("%s did not happen", what)
		case <-tick.C:
		}
	}
}

func (m *machine) pod(name string) *v1.Pod {
	p, err := m.client.CoreV1().Pods("default").Get(m.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return p
}

// run creates a pod and waits until it is ready.
func (m *machine) run(p *v1.Pod) *v1.Pod {
	m.t.Helper()
	began := time.Now()
	if _, err := m.client.CoreV1().Pods("default").Create(m.t.Context(), p, metav1.CreateOptions{}); err != nil {
		m.t.Fatal(err)
	}
	m.await("readiness of "+p.Name, func() bool { return ready(m.pod(p.Name)) })
	m.t.Logf("pod %s ready after %v", p.Name, time.Since(began))
	return m.pod(p.Name)
}

func ready(p *v1.Pod) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// delete marks a pod as deleted, as the API server does, and waits until the agent has removed it.
func (m *machine) delete(name string) {
	m.t.Helper()
	p := m.pod(name)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.Now()), new(int64(5))
	p.Finalizers = nil
	if _, err := m.client.CoreV1().Pods("default").Update(m.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		m.t.Fatal(err)
	}
	m.await("removal of "+name, func() bool {
		_, err := m.client.CoreV1().Pods("default").Get(m.t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// get asks the program of a pod.
func (m *machine) get(p *v1.Pod, path string, query ...string) string {
	m.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, "http://"+p.Status.PodIP+":8080"+path+"?"+v.Encode(), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "error: " + err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(body)
}

func serverPod(name string, change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-" + name), ResourceVersion: "1", Labels: map[string]string{"app": name},
		},
		Spec: v1.PodSpec{
			NodeName: "node", RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: new(int64(5)),
			ServiceAccountName: "default", DNSPolicy: v1.DNSClusterFirst,
			Containers: []v1.Container{{
				Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent,
				Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				ReadinessProbe: &v1.Probe{
					ProbeHandler:  v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromString("http")}},
					PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1,
				},
			}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestRealPod(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	settings := &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings", UID: "s", ResourceVersion: "1"},
		Data:       map[string]string{"color": "blue"},
	}
	if _, err := m.client.CoreV1().ConfigMaps("default").Create(t.Context(), settings, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := m.run(serverPod("full", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{
			{Name: "settings", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
				LocalObjectReference: v1.LocalObjectReference{Name: "settings"},
			}}},
			{Name: "token", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			}}}},
			{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
		}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []v1.VolumeMount{
			{Name: "settings", MountPath: "/settings"},
			{Name: "token", MountPath: "/token"},
			{Name: "scratch", MountPath: "/scratch"},
			{Name: "settings", MountPath: "/one/color.txt", SubPath: "color"},
		}
		c.Env = []v1.EnvVar{
			{Name: "IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "WHERE", Value: "at $(IP)"},
		}
	}))
	if !strings.HasPrefix(p.Status.PodIP, "10.231.") || p.Status.Phase != v1.PodRunning {
		t.Errorf("address %q, phase %s", p.Status.PodIP, p.Status.Phase)
	}
	for _, tt := range []struct{ path, arg, want string }{
		{path: "/env", arg: "WHERE", want: "at " + p.Status.PodIP},
		{path: "/env", arg: "HOSTNAME", want: "full"},
		{path: "/file", arg: "/settings/color", want: "blue"},
		{path: "/file", arg: "/one/color.txt", want: "blue"},
		{path: "/file", arg: "/token/token", want: "the-token"},
		{path: "/file", arg: "/etc/hostname", want: "full\n"},
		{path: "/file", arg: "/proc/sys/kernel/hostname", want: "full\n"},
		{path: "/file", arg: "/etc/resolv.conf", want: "nameserver " + m.instance.Gateway().String() +
			"\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"},
	} {
		if got := m.get(p, tt.path, "name", tt.arg); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.path, tt.arg, got, tt.want)
		}
	}

	settings.Data["color"], settings.ResourceVersion = "green", "2"
	if _, err := m.client.CoreV1().ConfigMaps("default").Update(t.Context(), settings, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.await("update of the volume", func() bool { return m.get(p, "/file", "name", "/settings/color") == "green" })

	m.delete("full")
	if left, err := m.runtime.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("containers left: %v, %v", left, err)
	}
	m.await("removal of the files", func() bool {
		entries, err := os.ReadDir(m.instance.Path("pods"))
		return err == nil && len(entries) == 0
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(m.instance.Path("pods"))) {
		t.Error("a mount of the pod was left")
	}
}

func TestRealRestartAndTerminationMessage(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.run(serverPod("crash"))
	m.get(p, "/exit", "code", "3", "message", "out of ideas")
	m.await("restart", func() bool {
		p := m.pod("crash")
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	last := m.pod("crash").Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 3 || last.Message != "out of ideas" || last.Reason != "Error" {
		t.Errorf("last state %+v", last)
	}
	m.delete("crash")
}

func TestRealAdoption(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.run(serverPod("kept"))
	m.run(serverPod("lost"))
	running, err := m.runtime.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.stop()
	if got := m.get(before, "/"); got != "hello" {
		t.Fatalf("without an agent the pod answers %q", got)
	}
	if err := m.client.CoreV1().Pods("default").Delete(t.Context(), "lost", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.await("removal of the orphan", func() bool {
		left, err := m.runtime.List(t.Context())
		return err == nil && len(left) == 1
	})
	left, err := m.runtime.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range running {
		if info.ID == left[0].ID && info.Status.PID != left[0].Status.PID {
			t.Errorf("process %d became %d", info.Status.PID, left[0].Status.PID)
		}
	}
	if got := m.get(before, "/"); got != "hello" {
		t.Errorf("the adopted pod answers %q", got)
	}
	after := m.pod("kept").Status.ContainerStatuses[0]
	if after.ContainerID != before.Status.ContainerStatuses[0].ContainerID || after.RestartCount != 0 || !after.Ready {
		t.Errorf("status after adoption: %+v", after)
	}
	m.delete("kept")
}

// kubelet calls the kubelet API as the API server does.
func (m *machine) kubelet(path string) (int, string) {
	m.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: m.pki.client(m.t, "kube-apiserver-kubelet-client"), DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, m.kubeletURL(path), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestRealLogs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.run(serverPod("logs"))
	m.get(p, "/print", "line", "one")
	m.get(p, "/print", "line", "two")
	m.await("the last line", func() bool {
		_, body := m.kubelet("/containerLogs/default/logs/app?tailLines=1")
		return body == "two\n"
	})
	if code, body := m.kubelet("/containerLogs/default/logs/app"); code != http.StatusOK || body != "listening\none\ntwo\n" {
		t.Errorf("log %d %q", code, body)
	}
	if code, body := m.kubelet("/containerLogs/default/logs/app?previous=true"); code != http.StatusBadRequest {
		t.Errorf("log of no previous attempt: %d %q", code, body)
	}
	m.delete("logs")
}

// restConfig reaches the kubelet API as the API server does.
func (m *machine) restConfig() *rest.Config {
	m.t.Helper()
	pair := m.pki.client(m.t, "kube-apiserver-kubelet-client").Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		m.t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return &rest.Config{Host: m.kubeletURL(""), TLSClientConfig: rest.TLSClientConfig{
		CAData: block("CERTIFICATE", m.pki.cert.Raw), CertData: block("CERTIFICATE", pair.Certificate[0]), KeyData: block("PRIVATE KEY", key),
	}}
}

func (m *machine) kubeletURL(path string) string {
	return fmt.Sprintf("https://%s:%d%s", m.instance.Gateway(), node.DefaultPort, path)
}

func TestRealExecAndPortForward(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run(serverPod("tools"))
	config := m.restConfig()

	u, err := url.Parse(m.kubeletURL("/exec/default/tools/app?command=/ko-app/server&command=exec&command=word&output=1"))
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &stdout}); err != nil || stdout.String() != "executed word" {
		t.Errorf("exec: %q, %v", stdout.String(), err)
	}

	if u, err = url.Parse(m.kubeletURL("/portForward/default/tools")); err != nil {
		t.Fatal(err)
	}
	roundTripper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forward, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, http.MethodPost, u),
		[]string{"0:9000"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- forward.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := forward.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || string(body) != "private" {
		t.Errorf("a port on the pod's loopback: %q, %v", body, err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	m.delete("tools")
}
