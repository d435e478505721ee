package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Platform is a running `weft up`.
type Platform struct {
	// Name of the instance.
	Name string
	// StateDir is a temporary directory that Destroy removes.
	StateDir string
	// Bin is the directory of the binaries under test.
	Bin string
	// HTTPPort and HTTPSPort are the gateway's ports, MetricsPort is the proxy's.
	HTTPPort, HTTPSPort, MetricsPort int
	// Flags are the arguments of `weft up`, so that a test can run it again.
	Flags []string
	// Kube reads and writes the platform's API as its administrator.
	Kube client.WithWatch
	// HTTP dials the gateway whatever a URL's host is.
	HTTP *http.Client
	// Exited is closed when `weft up` has ended.
	Exited chan struct{}

	up      *exec.Cmd
	exitErr error // set before Exited is closed
}

// Start starts a platform whose networks are chosen by index, so that several can run beside each other.
// The binaries are those in $WEFT_BIN, or in bin/ of the repository.
func Start(name string, index int) (*Platform, error) {
	// controller-runtime complains when its client logs a warning of the API server and nobody has said where to.
	ctrl.SetLogger(logr.Discard())
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(bin, "weft")); err != nil {
		return nil, fmt.Errorf("no weft binary, run `make build` first: %w", err)
	}
	stateDir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	p := &Platform{Name: name, StateDir: stateDir, Bin: bin, HTTPPort: ports[0], HTTPSPort: ports[3], MetricsPort: ports[2]}
	p.Flags = []string{
		"up", "--state-dir", stateDir, "--name", name,
		"--http-port", strconv.Itoa(ports[0]), "--https-port", strconv.Itoa(ports[3]), "--api-port", strconv.Itoa(ports[1]), "--metrics-port", strconv.Itoa(ports[2]),
		"--pod-cidr", fmt.Sprintf("10.%d.0.0/16", 211+2*index), "--service-cidr", fmt.Sprintf("10.%d.0.0/16", 212+2*index),
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.HTTPPort))
	p.HTTP = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		MaxIdleConnsPerHost: 256,
	}}
	if err := p.Run(); err != nil {
		return nil, errors.Join(err, p.Destroy())
	}
	return p, nil
}

// binaries is $WEFT_BIN, or bin/ of the repository that the working directory is in.
func binaries() (string, error) {
	if bin := os.Getenv("WEFT_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "Makefile")); err == nil {
			return filepath.Join(dir, "bin"), nil
		}
	}
	return "", errors.New("no repository above the working directory; set WEFT_BIN to the directory of the binaries")
}

// freePorts asks the kernel for ports that nothing listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Run runs `weft up` in the foreground of a session of its own and waits until its node is ready and its gateway answers.
func (p *Platform) Run() error {
	log, err := os.OpenFile(filepath.Join(p.StateDir, "e2e-up.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not bound to a context: a test ends it by the means that it tests.
	p.up = exec.CommandContext(context.Background(), filepath.Join(p.Bin, "weft"), p.Flags...)
	p.up.Stdout, p.up.Stderr = log, log
	p.up.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.up.Start(); err != nil {
		return err
	}
	p.Exited = make(chan struct{})
	go func() {
		p.exitErr = p.up.Wait()
		close(p.Exited)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	return Poll(ctx, func() error {
		select {
		case <-p.Exited:
			cancel()
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("weft up ended: %w\n%s", p.exitErr, bytes.TrimSpace(said))
		default:
			return p.ready(ctx)
		}
	})
}

// ready connects to the API and reports what is not there yet.
func (p *Platform) ready(ctx context.Context) error {
	if p.Kube == nil {
		kube, err := connect(filepath.Join(p.StateDir, "kubeconfig"))
		if err != nil {
			return err
		}
		p.Kube = kube
	}
	var nodes corev1.NodeList
	if err := p.Kube.List(ctx, &nodes); err != nil {
		return err
	}
	for _, node := range nodes.Items {
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return errors.Join(p.gatewayAnswers(ctx), p.admissionAnswers(ctx))
			}
		}
	}
	return fmt.Errorf("none of %d nodes is ready", len(nodes.Items))
}

func (p *Platform) gatewayAnswers(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nothing.invalid/", http.NoBody)
	if err != nil {
		return err
	}
	response, err := p.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNotFound {
		return fmt.Errorf("the gateway answers %d for an unknown host, want 404", response.StatusCode)
	}
	return nil
}

// admissionAnswers tries to create a Service, which fails until the webhooks of this run are registered: after a crash, node and gateway
// seem ready before.
func (p *Platform) admissionAnswers(ctx context.Context) error {
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "probe"}}
	s.Spec.Template.Spec.Containers = []corev1.Container{{Image: "dev.local/probe"}}
	return p.Kube.Create(ctx, s, client.DryRunAll)
}

func connect(kubeconfig string) (client.WithWatch, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), servingv1.AddToScheme(scheme), servingv1beta1.AddToScheme(scheme),
		autoscalingv1alpha1.AddToScheme(scheme), netv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// Poll tries until fn returns nil or ctx ends, and returns what was wrong last.
func Poll(ctx context.Context, fn func() error) error {
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// Weft runs the command line tool against this platform and returns what it printed.
func (p *Platform) Weft(args ...string) (string, error) {
	return p.WeftInput("", args...)
}

// WeftInput is Weft with something on standard input.
func (p *Platform) WeftInput(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.Bin, "weft"), args...)
	cmd.Env = append(os.Environ(), "WEFT_STATE_DIR="+p.StateDir, "KUBECONFIG=")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Kill ends weft with SIGKILL, as a crash would.
func (p *Platform) Kill() error {
	if err := p.up.Process.Kill(); err != nil {
		return err
	}
	<-p.Exited
	return nil
}

// Destroy stops the platform and removes all that it made.
func (p *Platform) Destroy() error {
	out, err := p.Weft("down", "--purge")
	if err != nil {
		err = fmt.Errorf("weft down --purge: %w\n%s", err, out)
	}
	return errors.Join(err, os.RemoveAll(p.StateDir))
}

// PID is the process id of `weft up`.
func (p *Platform) PID() int { return p.up.Process.Pid }

// DumpLogs prints the end of every log, for the person who reads a failed run.
func (p *Platform) DumpLogs() {
	logs, _ := filepath.Glob(filepath.Join(p.StateDir, "logs", "*.log"))
	for _, path := range append(logs, filepath.Join(p.StateDir, "e2e-up.log")) {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const tail = 6000
		if len(data) > tail {
			data = data[len(data)-tail:]
		}
		fmt.Fprintf(os.Stderr, "==== end of %s\n%s\n", filepath.Base(path), data)
	}
}

// RSS is the resident memory of a process in MiB.
func RSS(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// ProxyPID finds the data plane's process by its command line.
func (p *Platform) ProxyPID() (int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range entries {
		cmdline, err := os.ReadFile(path)
		if err == nil && bytes.Contains(cmdline, []byte("weft-proxy")) && bytes.Contains(cmdline, []byte(p.StateDir)) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, errors.New("no weft-proxy runs for this platform")
}
