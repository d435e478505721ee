package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// These tests follow Knative's runtime contract (knative/specs, serving/runtime-contract.md): what a container finds around it, and
// what a request finds on its way to it.

func containerOf(change func(*corev1.Container)) option {
	return func(s *servingv1.Service) { change(&s.Spec.Template.Spec.Containers[0]) }
}

// found is what a container says of itself.
type found struct {
	Files    map[string]struct{ Mode, Link, Error string }
	Contents map[string]string
	Writes   map[string]string
	CWD      string
	UID, GID int
	Args     []string
	StdinEOF bool
}

func (u *user) look(s *servingv1.Service, query url.Values) found {
	u.Helper()
	var f found
	if err := json.Unmarshal([]byte(u.mustGet(s.Status.URL, "/container?"+query.Encode())), &f); err != nil {
		u.Fatal(err)
	}
	return f
}

func TestContractContainer(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("contained", annotate("min-scale", "1"), containerOf(func(c *corev1.Container) {
		c.Args = []string{"one", "two words"}
		c.WorkingDir = "/tmp"
		c.Ports = []corev1.ContainerPort{{ContainerPort: 8801}}
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(2020))}
		c.Resources = corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: quantity("125m")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: quantity("1"), corev1.ResourceMemory: quantity("128Mi")},
		}
	}))
	links := map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	}
	modes := map[string]string{
		"/dev/full": "Dcrw", "/dev/null": "Dcrw", "/dev/ptmx": "crw", "/dev/random": "Dcrw", "/dev/tty": "Dcrw", "/dev/urandom": "Dcrw", "/dev/zero": "Dcrw",
		"/proc/self/fd": "dr", "/proc/self/fd/0": "", "/proc/self/fd/1": "", "/proc/self/fd/2": "",
		"/tmp": "dtrwxrwxrwx", "/etc/resolv.conf": "-rw-r--r--",
	}
	limits := [][2]string{{"/sys/fs/cgroup/memory.max", "134217728"}, {"/sys/fs/cgroup/cpu.max", "100000 100000"}}
	const mounts = "/proc/self/mountinfo"
	if strings.Contains(u.look(s, url.Values{"read": {mounts}}).Contents[mounts], " - cgroup cgroup ") {
		limits = [][2]string{
			{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728"},
			{"/sys/fs/cgroup/cpu/cpu.shares", "128"},
			{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000"},
			{"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"},
		}
	}
	query := url.Values{"stat": {"/dev/console"}, "write": {"/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward"}}
	for path := range links {
		query.Add("stat", path)
	}
	for path := range modes {
		query.Add("stat", path)
	}
	for _, limit := range limits {
		query.Add("read", limit[0])
		query.Add("write", limit[0])
	}
	got := u.look(s, query)
	for path, want := range links {
		if f := got.Files[path]; f.Link != want || f.Error != "" && path != "/dev/stdin" {
			t.Errorf("%s leads to %q (%s), want %q", path, f.Link, f.Error, want)
		}
	}
	for path, want := range modes {
		if f := got.Files[path]; f.Error != "" || !strings.Contains(f.Mode, strings.TrimPrefix(want, "-")) {
			t.Errorf("%s has the mode %q (%s), want %q", path, f.Mode, f.Error, want)
		}
	}
	if f := got.Files["/dev/console"]; !strings.Contains(f.Error, "no such file") {
		t.Errorf("/dev/console is there: %+v", f)
	}
	for _, limit := range limits {
		if value := strings.TrimSpace(got.Contents[limit[0]]); value != limit[1] {
			t.Errorf("%s is %q, want %q", limit[0], value, limit[1])
		}
	}
	for path, outcome := range got.Writes {
		if !strings.Contains(outcome, "read-only file system") && !strings.Contains(outcome, "permission denied") {
			t.Errorf("writing %s: %s, want a refusal", path, outcome)
		}
	}
	if !got.StdinEOF {
		t.Error("standard input has something to read, want its end")
	}
	if got.UID != 2020 || got.CWD != "/tmp" {
		t.Errorf("the process is user %d in %s, want 2020 in /tmp", got.UID, got.CWD)
	}
	if diff := cmp.Diff([]string{"one", "two words"}, got.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if environment := u.mustGet(s.Status.URL, "/env"); !strings.Contains(environment, `"PORT=8801"`) {
		t.Errorf("PORT is not the declared port 8801: %s", environment)
	}

	// Sysctls and cgroups are read-only for root, too.
	root := u.deploy("root", annotate("min-scale", "1"), containerOf(func(c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(0))}
	}))
	for path, outcome := range u.look(root, url.Values{"write": {"/proc/sys/kernel/hostname", limits[0][0]}}).Writes {
		if !strings.Contains(outcome, "read-only file system") {
			t.Errorf("root writing %s: %s, want a read-only file system", path, outcome)
		}
	}
	image := u.deploy("image-user", annotate("min-scale", "1"))
	if got := u.look(image, nil); got.UID != 65532 {
		t.Errorf("without runAsUser the process is user %d, want the image's, 65532", got.UID)
	}
}

func TestContractMemoryLimitKills(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("limited", annotate("min-scale", "1"), containerOf(func(c *corev1.Container) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: quantity("64Mi")}
	}))
	if a, err := u.get(s.Status.URL, "/memory?mib=400"); err == nil && a.status == http.StatusOK {
		t.Errorf("a container with a limit of 64Mi got 400 MiB: status %d", a.status)
	}
	u.wait(30*time.Second, "the kill is reported", func() error {
		for _, pod := range u.pods("limited") {
			for _, c := range pod.Status.ContainerStatuses {
				if t := c.LastTerminationState.Terminated; t != nil && t.Reason == "OOMKilled" {
					return nil
				}
			}
		}
		return errors.New("no container was OOMKilled")
	})
	u.wait(30*time.Second, "it serves again", func() error {
		if a, err := u.get(s.Status.URL, "/"); err != nil || a.status != http.StatusOK {
			return answered(a, err)
		}
		return nil
	})
}

// raw sends bytes to the gateway and returns the connection.
func (u *user) raw(request string) (net.Conn, *bufio.Reader) {
	u.Helper()
	conn, err := u.dialGateway(u.Context(), u.HTTPPort)
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		u.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func TestContractHeaders(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("headers")
	host := s.Status.URL.Host
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct {
		name, sent string
		// want are expressions; an empty one wants the header to be absent.
		want map[string]string
	}{
		{name: "plain", want: map[string]string{
			"Forwarded": `^for=127\.0\.0\.1;host=.*;proto=http$`, "X-Forwarded-For": `^127\.0\.0\.1$`, "X-Forwarded-Proto": `^http$`,
			"X-Forwarded-Host": "^" + regexp.QuoteMeta(host) + "$", "Traceparent": `^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`,
			"User-Agent": "", "Accept-Encoding": "",
		}},
		{name: "a trace goes on", sent: "Traceparent: " + trace + "\r\n", want: map[string]string{"Traceparent": "^" + trace + "$"}},
		{name: "a chain of proxies grows", sent: "X-Forwarded-For: 192.0.2.7\r\n", want: map[string]string{
			"X-Forwarded-For": `^192\.0\.2\.7, 127\.0\.0\.1$`, "Forwarded": `^for=192\.0\.2\.7, for=127\.0\.0\.1;`,
		}},
		{name: "scheme and host cannot be made up", sent: "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example.com\r\n", want: map[string]string{
			"X-Forwarded-Proto": `^http$`, "X-Forwarded-Host": "^" + regexp.QuoteMeta(host) + "$",
		}},
		{name: "the platform's headers cannot be made up", sent: "Knative-Serving-Revision: other-00001\r\nKnative-Serving-Namespace: other\r\n", want: map[string]string{
			"Knative-Serving-Revision": "", "Knative-Serving-Namespace": "",
		}},
		{name: "what the proxy adds cannot be taken away", sent: "Connection: X-Forwarded-For, Forwarded, X-Forwarded-Proto, close\r\n", want: map[string]string{
			"X-Forwarded-For": `^127\.0\.0\.1$`, "Forwarded": `^for=127\.0\.0\.1;`, "X-Forwarded-Proto": `^http$`,
		}},
		{name: "headers of one connection stay there", sent: "Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n", want: map[string]string{
			"X-Private": "", "Keep-Alive": "", "Connection": "", "Te": "",
		}},
		{name: "a user's headers pass as they are", sent: "X-Custom: a,  b ;c=\"d\"\r\nX-Custom: e\r\n", want: map[string]string{"X-Custom": `^a,  b ;c="d"\|e$`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, reader := u.raw("GET /headers HTTP/1.1\r\nHost: " + host + "\r\n" + tt.sent + "\r\n")
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			var got struct {
				Host    string
				Headers http.Header
			}
			if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if got.Host != host {
				t.Errorf("Host is %q, want %q", got.Host, host)
			}
			for name, want := range tt.want {
				values, ok := got.Headers[name]
				if want == "" && ok {
					t.Errorf("%s is %q, want none", name, values)
				}
				if want != "" && !regexp.MustCompile(want).MatchString(strings.Join(values, "|")) {
					t.Errorf("%s is %q, want %s", name, values, want)
				}
			}
		})
	}
}

func TestContractTimeouts(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	limits := func(whole, start, idle int64) option {
		return func(s *servingv1.Service) {
			spec := &s.Spec.Template.Spec
			spec.TimeoutSeconds = &whole
			if start > 0 {
				spec.ResponseStartTimeoutSeconds = &start
			}
			if idle > 0 {
				spec.IdleTimeoutSeconds = &idle
			}
		}
	}
	warm := annotate("min-scale", "1")
	whole, start, idle := u.deploy("whole", warm, limits(3, 0, 0)), u.deploy("start", warm, limits(10, 2, 0)), u.deploy("idle", warm, limits(10, 0, 2))
	for _, tt := range []struct {
		name    string
		service *servingv1.Service
		path    string
		status  int
		body    string
	}{
		{name: "within the whole time", service: whole, path: "/stream?first=1s&gap=1s", status: 200, body: "piece 0\npiece 1\n"},
		{name: "whole time over before the first byte", service: whole, path: "/stream?first=5s", status: 504, body: "request timeout\n"},
		{name: "whole time over in a stream", service: whole, path: "/stream?first=1s&gap=1s&gap=1500ms&gap=1s", status: 200, body: "piece 0\npiece 1\nrequest timeout\n"},
		{name: "the response starts in time and goes on", service: start, path: "/stream?first=500ms&gap=3s", status: 200, body: "piece 0\npiece 1\n"},
		{name: "the response starts too late", service: start, path: "/stream?first=5s", status: 504, body: "request timeout\n"},
		{name: "never idle for too long", service: idle, path: "/stream?first=1s&gap=1s&gap=1s&gap=1s", status: 200, body: "piece 0\npiece 1\npiece 2\npiece 3\n"},
		{name: "idle before the first byte", service: idle, path: "/stream?first=5s", status: 504, body: "request timeout\n"},
		{name: "idle in a stream", service: idle, path: "/stream?first=500ms&gap=4s", status: 200, body: "piece 0\nrequest timeout\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, err := u.get(tt.service.Status.URL, tt.path)
			if err != nil || a.status != tt.status || a.body != tt.body {
				t.Errorf("the answer is %d %q, %v; want %d %q", a.status, a.body, err, tt.status, tt.body)
			}
		})
	}
}

func TestContractHTTP(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	for _, port := range []string{"http1", "h2c"} {
		t.Run(port, func(t *testing.T) {
			s := u.deploy("http-"+port, portName(port), annotate("min-scale", "1"))
			base := s.Status.URL.String()
			u := &user{T: t, Platform: u.Platform, namespace: u.namespace}
			u.head(base)
			u.earlyHints(base)
			u.earlyAnswer(s, base)
			u.requestTrailer(base)
			u.expectContinue(s)
		})
	}
}

func (u *user) head(base string) {
	u.Helper()
	response, err := u.HTTP.Head(base + "/length")
	if err != nil {
		u.Error(err)
		return
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK || response.ContentLength != 7 || len(body) > 0 {
		u.Errorf("HEAD is answered %d with a length of %d and %d bytes of body, want 200, 7, 0", response.StatusCode, response.ContentLength, len(body))
	}
}

func (u *user) earlyHints(base string) {
	u.Helper()
	var hints []string
	ctx := httptrace.WithClientTrace(u.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints = append(hints, fmt.Sprintf("%d %s", code, h.Get("Link")))
		return nil
	}})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/hints", http.NoBody)
	if err != nil {
		u.Fatal(err)
	}
	response, err := u.HTTP.Do(request)
	if err != nil {
		u.Error(err)
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if diff := cmp.Diff([]string{"103 </style.css>; rel=preload"}, hints); diff != "" || string(body) != "hinted\n" || response.Header.Get("Link") != "" {
		u.Errorf("the answer is %q with Link %q, informational responses (-want +got):\n%s", body, response.Header.Get("Link"), diff)
	}
}

// earlyAnswer sends a large body to a server that answers without reading it.
func (u *user) earlyAnswer(s *servingv1.Service, base string) {
	u.Helper()
	begun := time.Now()
	response, err := u.HTTP.Post(base+"/early", "application/octet-stream", bytes.NewReader(make([]byte, 64<<20)))
	if err != nil {
		u.Errorf("an answer that comes before the end of a large upload was lost: %v", err)
		return
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too much\n" {
		u.Errorf("the answer is %d %q after %s, want 413", response.StatusCode, body, time.Since(begun))
	}
	u.mustGet(s.Status.URL, "/")
}

func (u *user) requestTrailer(base string) {
	u.Helper()
	reader, writer := io.Pipe()
	request, err := http.NewRequestWithContext(u.Context(), http.MethodPost, base+"/read", reader)
	if err != nil {
		u.Fatal(err)
	}
	request.Trailer = http.Header{"X-Sum": nil}
	go func() {
		_, _ = io.WriteString(writer, "four")
		request.Trailer.Set("X-Sum", "4")
		_ = writer.Close()
	}()
	response, err := u.HTTP.Do(request)
	if err != nil {
		u.Error(err)
		return
	}
	defer response.Body.Close()
	var got struct {
		Bytes   int
		Trailer http.Header
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		u.Error(err)
	}
	if got.Bytes != 4 || got.Trailer.Get("X-Sum") != "4" {
		u.Errorf("the server read %d bytes and the trailer %v, want 4 and X-Sum: 4", got.Bytes, got.Trailer)
	}
}

// expectContinue holds the body back until the server asks for it.
func (u *user) expectContinue(s *servingv1.Service) {
	u.Helper()
	const head = "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	conn, reader := u.raw(fmt.Sprintf(head, "/read", s.Status.URL.Host))
	line, err := reader.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		u.Errorf("the first answer is %q, %v; want 100 Continue", line, err)
		return
	}
	_, _ = reader.ReadString('\n')
	if _, err := io.WriteString(conn, "four"); err != nil {
		u.Error(err)
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		u.Error(err)
		return
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"bytes":4`) {
		u.Errorf("the answer after the body is %d %q", response.StatusCode, body)
	}
	// A server that refuses at once never gets the body.
	_, reader = u.raw(fmt.Sprintf(head, "/early", s.Status.URL.Host))
	refusal, err := http.ReadResponse(reader, nil)
	for err == nil && refusal.StatusCode == http.StatusContinue {
		_ = refusal.Body.Close()
		refusal, err = http.ReadResponse(reader, nil)
	}
	if err != nil {
		u.Errorf("a refusal without the body: %v", err)
		return
	}
	defer refusal.Body.Close()
	if refusal.StatusCode != http.StatusRequestEntityTooLarge {
		u.Errorf("a refusal without the body is %d, want 413", refusal.StatusCode)
	}
}

func TestContractConcurrencyIsExact(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("three", concurrency(3), annotate("min-scale", "1"), annotate("max-scale", "1"))
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if a, err := u.get(s.Status.URL, "/sleep?for=100ms"); err != nil || a.status != http.StatusOK {
				t.Errorf("%v, status %d %s", err, a.status, a.body)
			}
		})
	}
	wg.Wait()
	if got := strings.TrimSpace(u.mustGet(s.Status.URL, "/peak")); got != "3" {
		t.Errorf("the container saw %s requests at once, want exactly its limit of 3", got)
	}
}

func TestContractProbes(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	path := func(path string) *corev1.HTTPGetAction {
		return &corev1.HTTPGetAction{Path: path, HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Probe", Value: "yes"}}}
	}
	exists := func(path string) *corev1.ExecAction {
		return &corev1.ExecAction{Command: []string{"/ko-app/server", "exists", path}}
	}
	for _, tt := range []struct {
		name  string
		probe corev1.Probe
		also  option
	}{
		{name: "http-0", probe: corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: path("/readyz")}}},
		{name: "http-1", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: path("/readyz")}}},
		{name: "http-query", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: path("/query?probe=yes")}}},
		{name: "tcp-0", probe: corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}},
		{name: "tcp-1", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}},
		{name: "exec-1", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: exists("/ko-app/server")}}},
		{name: "grpc-1", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{}}}, also: portName("h2c")},
		{name: "other-port", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(9000)}}}, also: env("ALSO_LISTEN", "9000")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := &user{T: t, Platform: u.Platform, namespace: u.namespace}
			options := []option{containerOf(func(c *corev1.Container) { c.ReadinessProbe = &tt.probe })}
			if tt.also != nil {
				options = append(options, tt.also)
			}
			s := u.deploy(tt.name, options...)
			u.mustGet(s.Status.URL, "/")
		})
	}
	for _, tt := range []struct {
		name  string
		probe corev1.Probe
	}{
		{name: "exec-fails", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: exists("/no/such/file")}}},
		{name: "query-fails", probe: corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: path("/query?probe=no")}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := &user{T: t, Platform: u.Platform, namespace: u.namespace}
			if err := u.Kube.Create(u.Context(), u.service(tt.name, containerOf(func(c *corev1.Container) { c.ReadinessProbe = &tt.probe }))); err != nil {
				t.Fatal(err)
			}
			u.waitExplained("ksvc/"+tt.name, "the readiness probe of container user-container fails")
		})
	}
	t.Run("startup holds liveness back", func(t *testing.T) {
		t.Parallel()
		u := &user{T: t, Platform: u.Platform, namespace: u.namespace}
		// The liveness probe alone would kill the container before it listens.
		s := u.deploy("startup", env("START_DELAY", "6s"), containerOf(func(c *corev1.Container) {
			handler := corev1.ProbeHandler{HTTPGet: path("/readyz")}
			c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 30, ProbeHandler: handler}
			c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 3, ProbeHandler: handler}
		}))
		u.mustGet(s.Status.URL, "/")
		for _, pod := range u.pods("startup") {
			if n := pod.Status.ContainerStatuses[0].RestartCount; n != 0 {
				t.Errorf("the container was restarted %d times while it started", n)
			}
		}
	})
	t.Run("liveness restarts", func(t *testing.T) {
		t.Parallel()
		u := &user{T: t, Platform: u.Platform, namespace: u.namespace}
		s := u.deploy("live", annotate("min-scale", "1"), containerOf(func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: path("/livez")}}
		}))
		u.mustGet(s.Status.URL, "/livez?break=yes")
		u.wait(30*time.Second, "the container is restarted", func() error {
			for _, pod := range u.pods("live") {
				if pod.Status.ContainerStatuses[0].RestartCount > 0 {
					return nil
				}
			}
			return errors.New("it was not restarted")
		})
	})
}

// dialSocket opens a WebSocket through the gateway.
func (u *user) dialSocket(s *servingv1.Service) *websocket.Conn {
	u.Helper()
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return u.dialGateway(ctx, u.HTTPPort)
	}}
	conn, response, err := dialer.DialContext(u.Context(), "ws://"+s.Status.URL.Host+"/websocket", nil)
	if err != nil {
		u.Fatalf("dialling a WebSocket: %v", err)
	}
	_ = response.Body.Close()
	u.Cleanup(func() { _ = conn.Close() })
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		u.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "hello" {
		u.Fatalf("echo is %q, %v", got, err)
	}
	return conn
}

// A WebSocket does not keep its instance from being told to end: only the application can close it in order.
func TestContractWebSocketIsClosedInOrder(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("socket", annotate("min-scale", "1"))
	conn := u.dialSocket(s)
	u.kubectl("delete", "pod", u.pods("socket")[0].Name, "--wait=false")
	_, _, err := conn.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the WebSocket of an instance that is stopped ended with %v, want the application's own closure", err)
	}
}

func TestContractWebSocketTimeout(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("short", timeout(3))
	begun := time.Now()
	conn := u.dialSocket(s)
	_, _, err := conn.ReadMessage()
	if took := time.Since(begun); err == nil || took < 2*time.Second || took > 20*time.Second {
		t.Errorf("with timeoutSeconds 3 the WebSocket ended after %s with %v", took, err)
	}
}

func TestContractGRPCThroughScaleFromZero(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("calls", portName("h2c"), annotate("window", "6s"), concurrency(1), annotate("max-scale", "2"))
	u.waitZero("calls")
	client := u.health(s.Status.URL.Host, u.HTTPPort, insecure.NewCredentials())
	// A stream first: it takes the only place of the first instance, so that the calls need another.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("the first message of a stream to a service at zero: %v, %v", first, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if r, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
				t.Errorf("a unary call beside a stream: %v, %v", r, err)
			}
		})
	}
	wg.Wait()
	u.waitPods(10*time.Second, "calls", 2)
}
