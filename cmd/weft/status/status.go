// Package status finds out what runs of a platform, from the outside: from its files, from /proc, and by asking its API. Command
// weft status prints it.
package status

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubeversion "k8s.io/component-base/version"

	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/cmd/weft/teardown"
	"github.com/weft-dev/weft/embedded/supervise"
)

// Report is the answer. Its JSON form is part of the user's interface.
type Report struct {
	Weft       Process `json:"weft"`
	Proxy      Process `json:"proxy"`
	Name       string  `json:"name"`
	Version    string  `json:"version"`
	Kubernetes string  `json:"kubernetes"`
	// Gateway and GatewayHTTPS are the forms of the services' URLs.
	Gateway      string `json:"gateway"`
	GatewayHTTPS string `json:"gatewayHTTPS"`
	API          string `json:"api"`
	Metrics      string `json:"metrics"`
	Kubeconfig   string `json:"kubeconfig"`
	StateDir     string `json:"stateDir"`
	Logs         string `json:"logs"`
	// Objects is nil when the API does not answer.
	Objects *Objects `json:"objects,omitempty"`
	// Problems are what could not be found out, one line each.
	Problems []string `json:"problems,omitempty"`
}

// Process is one of the two processes.
type Process struct {
	Running     bool      `json:"running"`
	PID         int       `json:"pid,omitempty"`
	Started     time.Time `json:"started,omitzero"`
	MemoryBytes int64     `json:"memoryBytes,omitempty"`
}

// Uptime is the time since the start.
func (p Process) Uptime() time.Duration { return time.Since(p.Started) }

// Objects counts what is in the API.
type Objects struct {
	Services      int `json:"services"`
	ServicesReady int `json:"servicesReady"`
	Revisions     int `json:"revisions"`
	Pods          int `json:"pods"`
	PodsRunning   int `json:"podsRunning"`
}

// Collect asks everything. An API that does not answer is a problem in the report, not an error.
func Collect(ctx context.Context, s settings.Settings, version string) (Report, error) {
	r := Report{
		Name: s.Name, Version: version, Kubernetes: kubeversion.Get().GitVersion,
		Gateway: s.ServiceURL("http"), GatewayHTTPS: s.ServiceURL("https"),
		API:        "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.APIPort)),
		Metrics:    "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.MetricsPort)) + "/metrics",
		Kubeconfig: s.Kubeconfig(), StateDir: s.StateDir, Logs: s.Path("logs"),
	}
	pid, err := s.Owner()
	if err != nil {
		return r, err
	}
	if r.Weft, err = process(pid); err != nil {
		return r, err
	}
	record, alive, err := supervise.Find(teardown.ProxyPIDFile(s.Instance))
	if err != nil {
		return r, err
	}
	if alive {
		if r.Proxy, err = process(record.PID); err != nil {
			return r, err
		}
	}
	if !r.Weft.Running {
		return r, nil
	}
	if !r.Proxy.Running {
		r.Problems = append(r.Problems, "weft-proxy does not run, see "+s.Path("logs", "weft-proxy.log"))
	}
	if r.Objects, err = count(ctx, s); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	return r, nil
}

// process reads a process's start and memory. Pid zero is a process that does not run.
func process(pid int) (Process, error) {
	if pid == 0 {
		return Process{}, nil
	}
	dir := "/proc/" + strconv.Itoa(pid)
	info, err := os.Stat(dir)
	if os.IsNotExist(err) {
		return Process{}, nil
	}
	if err != nil {
		return Process{}, fmt.Errorf("looking at process %d: %w", pid, err)
	}
	p := Process{Running: true, PID: pid, Started: info.ModTime()}
	if data, err := os.ReadFile(dir + "/statm"); err == nil {
		var size, resident int64
		if _, err := fmt.Sscan(string(data), &size, &resident); err == nil {
			p.MemoryBytes = resident * int64(os.Getpagesize())
		}
	}
	return p, nil
}

func count(ctx context.Context, s settings.Settings) (*Objects, error) {
	access, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	access.QPS = -1
	o := &Objects{}
	if err := countKnative(ctx, access, o); err != nil {
		return nil, fmt.Errorf("asking the API: %w", err)
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("making client: %w", err)
	}
	pods, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking the API: %w", err)
	}
	o.Pods = len(pods.Items)
	for i := range pods.Items {
		if pods.Items[i].Status.Phase == corev1.PodRunning {
			o.PodsRunning++
		}
	}
	return o, nil
}

func countKnative(ctx context.Context, access *rest.Config, o *Objects) error {
	client, err := dynamic.NewForConfig(access)
	if err != nil {
		return err
	}
	serving := schema.GroupVersion{Group: "serving.knative.dev", Version: "v1"}
	services, err := client.Resource(serving.WithResource("services")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	o.Services = len(services.Items)
	for i := range services.Items {
		if ready(&services.Items[i]) {
			o.ServicesReady++
		}
	}
	revisions, err := client.Resource(serving.WithResource("revisions")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	o.Revisions = len(revisions.Items)
	return nil
}

func ready(object *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return false
	}
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == "Ready" {
			return condition["status"] == string(metav1.ConditionTrue)
		}
	}
	return false
}
