package embedded_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/weft-dev/weft/embedded"
	"github.com/weft-dev/weft/internal/instance"
)

// startLimit is generous: the bar on an idle machine is 10 s.
const startLimit = 60 * time.Second

// TestControlPlane starts a control plane twice on the same directory: a Deployment becomes a bound Pod in the first run and is
// still there in the second. It is one test because the Kubernetes libraries hold global state and cannot run twice at once.
func TestControlPlane(t *testing.T) {
	t.Parallel()
	opts := embedded.Options{Instance: newInstance(t), APIPort: freePort(t), Step: func(name string, took time.Duration) {
		t.Logf("%-16s %v", name, took.Round(time.Millisecond))
	}}

	t.Cleanup(func() { showLog(t, opts.Instance.Path("logs", "kubernetes.log")) })

	client, stop := run(t, opts)
	addNode(t, client, opts.Instance.Name)
	began := time.Now()
	addDeployment(t, client)
	bound := waitPod(t, client, func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	t.Logf("created to bound %v", time.Since(began).Round(time.Millisecond))
	if bound.Spec.NodeName != opts.Instance.Name {
		t.Errorf("pod is bound to %q, want %q", bound.Spec.NodeName, opts.Instance.Name)
	}
	checkEndpoint(t, client, opts)
	began = time.Now()
	stop()
	t.Logf("stopped in %v", time.Since(began).Round(time.Millisecond))

	client, stop = run(t, opts)
	defer stop()
	again := waitPod(t, client, func(*corev1.Pod) bool { return true })
	if again.UID != bound.UID {
		t.Errorf("pod after the restart has uid %s, want that of before, %s", again.UID, bound.UID)
	}
}

// showLog prints the end of a log when the test has failed.
func showLog(t *testing.T, path string) {
	t.Helper()
	const tail = 16 << 10
	data, err := os.ReadFile(path)
	if t.Failed() && err == nil {
		t.Logf("%s:\n%s", path, data[max(0, len(data)-tail):])
	}
}

// checkEndpoint asserts that pods find the API server at an address that is not loopback, and that the relay answers there.
func checkEndpoint(t *testing.T, client *kubernetes.Clientset, opts embedded.Options) {
	t.Helper()
	endpoints, err := client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(endpoints.Endpoints) != 1 || endpoints.Endpoints[0].Addresses[0] != opts.Instance.Gateway().String() {
		t.Errorf("endpoints of kubernetes.default are %v, want %s", endpoints.Endpoints, opts.Instance.Gateway())
	}
	if got := int(*endpoints.Ports[0].Port); got != opts.APIPort {
		t.Errorf("port of kubernetes.default is %d, want %d", got, opts.APIPort)
	}
}

// run starts a control plane and waits until it is ready.
func run(t *testing.T, opts embedded.Options) (*kubernetes.Clientset, func()) {
	t.Helper()
	bootstrapped := false
	opts.Bootstrap = func(ctx context.Context, config *rest.Config) error {
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		bootstrapped = err == nil
		return err
	}
	c, err := embedded.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case err := <-done:
		t.Fatalf("control plane ended before it was ready: %v", err)
	case <-time.After(startLimit):
		t.Fatalf("control plane is not ready after %v", startLimit)
	}
	t.Logf("ready in %v", time.Since(began).Round(time.Millisecond))
	if !bootstrapped {
		t.Error("Bootstrap was not called before Ready")
	}
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	return client, func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("stopping the control plane: %v", err)
		}
	}
}

func addNode(t *testing.T, client *kubernetes.Clientset, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	node.Status.Capacity, node.Status.Allocatable = capacity, capacity
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func addDeployment(t *testing.T, client *kubernetes.Clientset) {
	t.Helper()
	labels := map[string]string{"app": "hello"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hello"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.com/hello"}}},
			},
		},
	}
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// waitPod returns the only pod once it satisfies a condition.
func waitPod(t *testing.T, client *kubernetes.Clientset, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(startLimit / 3)
	for {
		pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) == 1 && ok(&pods.Items[0]) {
			return &pods.Items[0]
		}
		select {
		case <-deadline:
			t.Fatalf("no pod is as wanted: %+v", pods.Items)
		case <-ticker.C:
		}
	}
}

// newInstance has networks of its own, so that the relay's address is free on any machine.
func newInstance(t *testing.T) instance.Instance {
	t.Helper()
	random := make([]byte, 3)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	i := instance.Default()
	i.Name = "t" + hex.EncodeToString(random)
	i.StateDir = filepath.Join(t.TempDir(), "s")
	i.PodCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 220 + random[0]%10, random[1], 0}), 24)
	i.ServiceCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 230 + random[0]%10, random[1], 0}), 24)
	return i
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
