package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/container/containertest"
	"github.com/weft-dev/weft/node/pod"
	"github.com/weft-dev/weft/node/server"
	"github.com/weft-dev/weft/node/status"
)

// pods has one pod.
type pods struct{ view *pod.View }

func (p pods) Pod(namespace, name string) (*pod.View, bool) {
	return p.view, namespace == "ns" && name == p.view.Pod.Name
}

func (p pods) List() []*v1.Pod { return []*v1.Pod{p.view.Pod} }

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	if a.cert == nil {
		a.cert, a.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == template {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	rawKey, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: rawKey})
}

// api is a running server with what is needed to call it.
type api struct {
	t         *testing.T
	url       string
	authority *authority
	rootPEM   []byte
	runtime   *containertest.Fake
}

func newAPI(t *testing.T, view *pod.View) *api {
	t.Helper()
	a := &api{t: t, authority: &authority{}, runtime: &containertest.Fake{}}
	a.rootPEM, _ = a.authority.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	cert, key := a.authority.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(a.authority.cert)
	s, err := server.New(server.Options{
		Pods: pods{view}, Runtime: a.runtime, Stats: stats{}, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients},
	})
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.url = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *api) config(name string) *rest.Config {
	a.t.Helper()
	cert, key := a.authority.sign(a.t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return &rest.Config{Host: a.url, TLSClientConfig: rest.TLSClientConfig{CAData: a.rootPEM, CertData: cert, KeyData: key}}
}

const apiserver = "kube-apiserver-kubelet-client"

func (a *api) get(name, path string) (int, string) {
	a.t.Helper()
	client, err := rest.HTTPClientFor(a.config(name))
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.url+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func view(t *testing.T, log string) *pod.View {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "0.log"), []byte("2026-01-02T03:04:05Z stdout F before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "1.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	c := func(name string) *v1.Container { return &v1.Container{Name: name} }
	return &pod.View{
		Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}, NetNS: "/proc/self/ns/net",
		Containers: map[string]pod.ContainerView{
			"app": {
				Container: status.Container{Restarts: 1, Current: &status.Attempt{ID: "id", Running: true}}, Spec: c("app"),
				LogPath: filepath.Join(dir, "1.log"),
			},
			"new":  {Spec: c("new")},
			"pull": {Spec: c("pull"), Container: status.Container{Waiting: &v1.ContainerStateWaiting{Reason: status.ErrImagePull}}},
			"back": {Spec: c("back"), Container: status.Container{Waiting: &v1.ContainerStateWaiting{Reason: status.ImagePullBackOff}}},
		},
	}
}

const threeLines = "2026-01-02T03:04:05Z stdout F one\n2026-01-02T03:04:06Z stderr F two\n2026-01-02T03:04:07Z stdout F three\n"

func TestLogs(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, threeLines))
	for _, tt := range []struct {
		name, path string
		code       int
		want       string
	}{
		{name: "all", path: "/containerLogs/ns/p/app", code: 200, want: "one\ntwo\nthree\n"},
		{name: "tail", path: "/containerLogs/ns/p/app?tailLines=1", code: 200, want: "three\n"},
		{name: "limit", path: "/containerLogs/ns/p/app?limitBytes=5", code: 200, want: "one\nt"},
		{name: "timestamps", path: "/containerLogs/ns/p/app?timestamps=true&tailLines=1", code: 200, want: "2026-01-02T03:04:07Z three\n"},
		{name: "since", path: "/containerLogs/ns/p/app?sinceTime=2026-01-02T03:04:06Z", code: 200, want: "two\nthree\n"},
		{name: "one stream", path: "/containerLogs/ns/p/app?stream=Stderr", code: 200, want: "two\n"},
		{name: "previous", path: "/containerLogs/ns/p/app?previous=true", code: 200, want: "before\n"},
		{name: "bad number", path: "/containerLogs/ns/p/app?tailLines=x", code: 400, want: "invalid value for tailLines: \"x\"\n"},
		{name: "no pod", path: "/containerLogs/ns/no/app", code: 404, want: "pod \"no\" does not exist\n"},
		{name: "no container", path: "/containerLogs/ns/p/no", code: 404, want: "container \"no\" not found in pod \"p\"\n"},
		{name: "not started", path: "/containerLogs/ns/p/new", code: 400, want: "container \"new\" in pod \"p\" is waiting to start: ContainerCreating\n"},
		{name: "no image", path: "/containerLogs/ns/p/pull", code: 400, want: "container \"pull\" in pod \"p\" is waiting to start: image can't be pulled\n"},
		{name: "back-off", path: "/containerLogs/ns/p/back", code: 400, want: "container \"back\" in pod \"p\" is waiting to start: trying and failing to pull image\n"},
		{name: "no previous", path: "/containerLogs/ns/p/new?previous=true", code: 400, want: "previous terminated container \"new\" in pod \"p\" not found\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if code, body := a.get(apiserver, tt.path); code != tt.code || body != tt.want {
				t.Errorf("%d %q, want %d %q", code, body, tt.code, tt.want)
			}
		})
	}
}

func TestFollowedLogsEndWithTheContainer(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, threeLines))
	a.runtime.Add(container.Info{ID: "id"})
	done := make(chan string, 1)
	go func() {
		_, body := a.get(apiserver, "/containerLogs/ns/p/app?follow=true&tailLines=1")
		done <- body
	}()
	a.runtime.AwaitCalls(t.Context(), containertest.Wait, 1)
	a.runtime.Exit("id", 0)
	if body := <-done; body != "three\n" {
		t.Errorf("log %q", body)
	}
}

func TestOnlyTheAPIServerIsServed(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, ""))
	if code, body := a.get(apiserver, "/healthz"); code != http.StatusOK || body != "ok" {
		t.Errorf("the API server got %d %q", code, body)
	}
	if code, _ := a.get("system:node:other", "/healthz"); code != http.StatusForbidden {
		t.Errorf("another client got %d", code)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("a client without a certificate got %d", resp.StatusCode)
	}
}

// executors are the two ways in which the API server asks for a command.
func (a *api) executors(path string) map[string]remotecommand.Executor {
	a.t.Helper()
	u, err := url.Parse(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	old, err := remotecommand.NewSPDYExecutor(a.config(apiserver), http.MethodPost, u)
	if err != nil {
		a.t.Fatal(err)
	}
	// The API server translates version 5, which kubectl speaks, to SPDY; it passes on version 4.
	socket, err := remotecommand.NewWebSocketExecutorForProtocols(a.config(apiserver), http.MethodGet, u.String(), "v4.channel.k8s.io")
	if err != nil {
		a.t.Fatal(err)
	}
	return map[string]remotecommand.Executor{"SPDY": old, "WebSocket": socket}
}

func TestExec(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, ""))
	a.runtime.Add(container.Info{ID: "id"})
	a.runtime.OnExec(func(_ context.Context, id string, o container.ExecOptions) (int, error) {
		in := make([]byte, len("text"))
		if _, err := io.ReadFull(o.Stdin, in); err != nil { // version 4 cannot tell the end
			return 0, err
		}
		_, _ = fmt.Fprintf(o.Stdout, "%s runs %q with %q", id, o.Args, in)
		_, _ = io.WriteString(o.Stderr, "warning")
		return 3, nil
	})
	for name, executor := range a.executors("/exec/ns/p/app?command=a&command=b&input=1&output=1&error=1") {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{
				Stdin: strings.NewReader("text"), Stdout: &stdout, Stderr: &stderr,
			})
			var exit utilexec.CodeExitError
			if !errors.As(err, &exit) || exit.Code != 3 {
				t.Errorf("error %v, want exit code 3", err)
			}
			if stdout.String() != `id runs ["a" "b"] with "text"` || stderr.String() != "warning" {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
		})
	}
	for name, executor := range a.executors("/exec/ns/p/new?command=a&output=1") {
		if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil {
			t.Errorf("%s: a command ran in a container that does not", name)
		}
	}
}

func TestExecWithTerminal(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, ""))
	a.runtime.Add(container.Info{ID: "id"})
	a.runtime.OnExec(func(ctx context.Context, _ string, o container.ExecOptions) (int, error) {
		select {
		case size := <-o.Resize:
			_, _ = fmt.Fprintf(o.Stdout, "%v %dx%d", o.TTY, size.Width, size.Height)
		case <-ctx.Done():
		}
		return 0, nil
	})
	for name, executor := range a.executors("/exec/ns/p/app?command=sh&output=1&tty=1") {
		t.Run(name, func(t *testing.T) {
			var stdout bytes.Buffer
			err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{
				Stdout: &stdout, Tty: true, TerminalSizeQueue: &oneSize{},
			})
			if err != nil || stdout.String() != "true 80x24" {
				t.Errorf("%q, %v", stdout.String(), err)
			}
		})
	}
}

// oneSize is a terminal that never changes.
type oneSize struct{ given bool }

func (s *oneSize) Next() *remotecommand.TerminalSize {
	if s.given {
		return nil
	}
	s.given = true
	return &remotecommand.TerminalSize{Width: 80, Height: 24}
}

func TestAttachFollowsTheOutput(t *testing.T) {
	t.Parallel()
	v := view(t, threeLines)
	a := newAPI(t, v)
	a.runtime.Add(container.Info{ID: "id"})
	var out writerFunc = func(p []byte) (int, error) {
		if string(p) == "four\n" {
			a.runtime.Exit("id", 0)
		}
		return len(p), nil
	}
	executor := a.executors("/attach/ns/p/app?output=1")["WebSocket"]
	done := make(chan error, 1)
	go func() { done <- executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: out}) }()
	a.runtime.AwaitCalls(t.Context(), containertest.Wait, 1)
	f, err := os.OpenFile(v.Containers["app"].LogPath, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's file
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for { // lines before the reader is at the end are not shown, so that one line is not enough
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("attaching: %v", err)
			}
			return
		case <-tick.C:
			if _, err := f.WriteString("2026-01-02T03:04:08Z stdout F four\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAttachRefusesInput(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, ""))
	a.runtime.Add(container.Info{ID: "id"})
	executor := a.executors("/attach/ns/p/app?input=1&output=1")["WebSocket"]
	err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "standard input of a container is not supported") {
		t.Errorf("error %v", err)
	}
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	a := newAPI(t, view(t, ""))
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "private")
	})}
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { _ = web.Close() })

	u, err := url.Parse(a.url + "/portForward/ns/p")
	if err != nil {
		t.Fatal(err)
	}
	roundTripper, upgrader, err := spdy.RoundTripperFor(a.config(apiserver))
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, http.MethodPost, u)
	stop, ready := make(chan struct{}), make(chan struct{})
	ports := fmt.Sprintf("0:%d", l.Addr().(*net.TCPAddr).Port)
	forward, err := portforward.New(dialer, []string{ports}, stop, ready, io.Discard, io.Discard)
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
	local, err := forward.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", local[0].Local), nil)
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
			t.Errorf("%q, %v", body, err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
