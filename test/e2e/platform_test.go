package e2e

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
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// serverImage is built from ./server before the first test.
const serverImage = "dev.local/e2e-server:v1"

// shared is the platform that all tests use, except those that must have one of their own.
var shared *platform

func TestMain(m *testing.M) {
	os.Exit(runMain(m))
}

func runMain(m *testing.M) int {
	p, err := startPlatform("e2e", 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the platform:", err)
		return 1
	}
	shared = p
	code := 1
	if out, err := p.weft("image", "build", serverImage, "./server"); err != nil {
		fmt.Fprintf(os.Stderr, "building the test server's image: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	if code != 0 {
		p.dumpLogs()
	}
	if err := p.destroy(); err != nil {
		fmt.Fprintln(os.Stderr, "removing the platform:", err)
		return 1
	}
	return code
}

// platform is a running `weft up`.
type platform struct {
	name     string
	stateDir string
	bin      string
	httpPort int
	metrics  int
	flags    []string
	kube     client.WithWatch
	http     *http.Client
	up       *exec.Cmd
	// exited is closed when up has ended with exitErr.
	exited  chan struct{}
	exitErr error
}

// startPlatform starts a platform whose networks are chosen by index, so that several can run beside each other.
func startPlatform(name string, index int) (*platform, error) {
	bin := os.Getenv("WEFT_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin")
	}
	bin, err := filepath.Abs(bin)
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
	p := &platform{name: name, stateDir: stateDir, bin: bin, httpPort: ports[0], metrics: ports[3]}
	p.flags = []string{
		"up", "--state-dir", stateDir, "--name", name,
		"--http-port", strconv.Itoa(ports[0]), "--https-port", strconv.Itoa(ports[1]), "--api-port", strconv.Itoa(ports[2]), "--metrics-port", strconv.Itoa(ports[3]),
		"--pod-cidr", fmt.Sprintf("10.%d.0.0/16", 211+2*index), "--service-cidr", fmt.Sprintf("10.%d.0.0/16", 212+2*index),
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.httpPort))
	p.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		MaxIdleConnsPerHost: 256,
	}}
	if err := p.start(); err != nil {
		return nil, errors.Join(err, p.destroy())
	}
	return p, nil
}

// freePorts asks the kernel for ports that nothing listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// start runs `weft up` in the foreground of a session of its own and waits until its node is ready and its gateway answers.
func (p *platform) start() error {
	log, err := os.OpenFile(filepath.Join(p.stateDir, "e2e-up.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.up = exec.Command(filepath.Join(p.bin, "weft"), p.flags...)
	p.up.Stdout, p.up.Stderr = log, log
	p.up.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.up.Start(); err != nil {
		return err
	}
	p.exited = make(chan struct{})
	go func() {
		p.exitErr = p.up.Wait()
		close(p.exited)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	return poll(ctx, func() error {
		select {
		case <-p.exited:
			cancel()
			return fmt.Errorf("weft up ended: %w", p.exitErr)
		default:
			return p.ready(ctx)
		}
	})
}

// ready connects to the API and reports what is not there yet.
func (p *platform) ready(ctx context.Context) error {
	if p.kube == nil {
		kube, err := connect(filepath.Join(p.stateDir, "kubeconfig"))
		if err != nil {
			return err
		}
		p.kube = kube
	}
	var nodes corev1.NodeList
	if err := p.kube.List(ctx, &nodes); err != nil {
		return err
	}
	for _, node := range nodes.Items {
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return p.gatewayAnswers(ctx)
			}
		}
	}
	return fmt.Errorf("none of %d nodes is ready", len(nodes.Items))
}

func (p *platform) gatewayAnswers(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nothing.invalid/", http.NoBody)
	if err != nil {
		return err
	}
	response, err := p.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNotFound {
		return fmt.Errorf("the gateway answers %d for an unknown host, want 404", response.StatusCode)
	}
	return nil
}

func connect(kubeconfig string) (client.WithWatch, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), servingv1.AddToScheme(scheme), autoscalingv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// poll tries until fn returns nil or ctx ends, and returns what was wrong last.
func poll(ctx context.Context, fn func() error) error {
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

// weft runs the command line tool against this platform and returns what it printed.
func (p *platform) weft(args ...string) (string, error) {
	return p.weftInput("", args...)
}

func (p *platform) weftInput(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "weft"), args...)
	cmd.Env = append(os.Environ(), "WEFT_STATE_DIR="+p.stateDir, "KUBECONFIG=")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kill ends weft with SIGKILL, as a crash would.
func (p *platform) kill() error {
	if err := p.up.Process.Kill(); err != nil {
		return err
	}
	<-p.exited
	return nil
}

// destroy stops the platform and removes all that it made.
func (p *platform) destroy() error {
	out, err := p.weft("down", "--purge")
	if err != nil {
		err = fmt.Errorf("weft down --purge: %w\n%s", err, out)
	}
	return errors.Join(err, os.RemoveAll(p.stateDir))
}

// dumpLogs prints the end of every log, for the person who reads a failed run.
func (p *platform) dumpLogs() {
	logs, _ := filepath.Glob(filepath.Join(p.stateDir, "logs", "*.log"))
	for _, path := range append(logs, filepath.Join(p.stateDir, "e2e-up.log")) {
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

// proxyPID finds the data plane's process by its command line.
func (p *platform) proxyPID(t *testing.T) int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range entries {
		cmdline, err := os.ReadFile(path)
		if err == nil && bytes.Contains(cmdline, []byte("weft-proxy")) && bytes.Contains(cmdline, []byte(p.stateDir)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no weft-proxy runs for this platform")
	return 0
}
