package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/test/platform"
)

// user is one test's place on a platform: a namespace of its own, removed at the end.
type user struct {
	*testing.T
	*platform.Platform
	namespace string
}

func newUser(t *testing.T, p *platform.Platform) *user {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test")))
	u := &user{T: t, Platform: p, namespace: name[:min(len(name), 40)]}
	if err := p.Kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: u.namespace}}); err != nil {
		t.Fatalf("creating namespace: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			u.describe()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = p.Kube.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: u.namespace}})
	})
	return u
}

// describe prints the namespace for the person who reads a failed test.
func (u *user) describe() {
	for _, args := range [][]string{
		{"get", "ksvc,configuration,revision,route,kpa,deployments,pods,services", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"get", "ksvc", "-o", "yaml"},
	} {
		out, _ := u.Weft(append([]string{"kubectl", "-n", u.namespace}, args...)...)
		u.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
}

// must fails the test when the command line tool does.
func (u *user) must(args ...string) string {
	u.Helper()
	out, err := u.Weft(args...)
	if err != nil {
		u.Fatalf("weft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (u *user) kubectl(args ...string) string {
	u.Helper()
	return u.must(append([]string{"kubectl", "-n", u.namespace}, args...)...)
}

// wait polls until check returns nil, or fails the test with what was wrong last.
func (u *user) wait(limit time.Duration, what string, check func() error) {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), limit)
	defer cancel()
	start := time.Now()
	if err := platform.Poll(ctx, check); err != nil {
		u.Fatalf("%s: not within %s: %v", what, limit, err)
	}
	u.Logf("%s after %s", what, time.Since(start).Round(time.Millisecond))
}

type option func(*servingv1.Service)

// service describes a Knative Service that runs the test server.
func (u *user) service(name string, options ...option) *servingv1.Service {
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: u.namespace}}
	s.Spec.Template.Spec.Containers = []corev1.Container{{Image: serverImage}}
	for _, o := range options {
		o(s)
	}
	return s
}

func annotate(key, value string) option {
	return func(s *servingv1.Service) {
		if s.Spec.Template.Annotations == nil {
			s.Spec.Template.Annotations = map[string]string{}
		}
		s.Spec.Template.Annotations["autoscaling.knative.dev/"+key] = value
	}
}

func env(name, value string) option {
	return func(s *servingv1.Service) {
		c := &s.Spec.Template.Spec.Containers[0]
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
	}
}

func concurrency(n int64) option {
	return func(s *servingv1.Service) { s.Spec.Template.Spec.ContainerConcurrency = &n }
}

func timeout(seconds int64) option {
	return func(s *servingv1.Service) { s.Spec.Template.Spec.TimeoutSeconds = &seconds }
}

func portName(name string) option {
	return func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: name, ContainerPort: 8080}}
	}
}

// deploy creates a service and waits until it is ready.
func (u *user) deploy(name string, options ...option) *servingv1.Service {
	u.Helper()
	s := u.service(name, options...)
	if err := u.Kube.Create(u.Context(), s); err != nil {
		u.Fatalf("creating service %s: %v", name, err)
	}
	return u.waitReady(name)
}

// update changes a service's specification and returns without waiting.
func (u *user) update(name string, change func(*servingv1.Service)) {
	u.Helper()
	u.wait(10*time.Second, "updating "+name, func() error {
		s, err := u.load(name)
		if err != nil {
			return err
		}
		change(s)
		return u.Kube.Update(u.Context(), s)
	})
}

func (u *user) load(name string) (*servingv1.Service, error) {
	var s servingv1.Service
	err := u.Kube.Get(u.Context(), keyOf(u.namespace, name), &s)
	return &s, err
}

func (u *user) waitReady(name string) *servingv1.Service {
	u.Helper()
	var s *servingv1.Service
	u.wait(60*time.Second, name+" is ready", func() (err error) {
		if s, err = u.load(name); err != nil {
			return err
		}
		if !s.IsReady() {
			return fmt.Errorf("conditions %s", conditions(s))
		}
		return nil
	})
	return s
}

func conditions(s *servingv1.Service) string {
	var b strings.Builder
	for _, c := range s.Status.Conditions {
		fmt.Fprintf(&b, "%s=%s %s %q; ", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

// waitCondition waits for a condition of a service with this status whose reason or message contains text.
func (u *user) waitCondition(name string, kind apis.ConditionType, status corev1.ConditionStatus, text string) {
	u.Helper()
	u.wait(30*time.Second, fmt.Sprintf("%s is %s=%s with %q", name, kind, status, text), func() error {
		s, err := u.load(name)
		if err != nil {
			return err
		}
		c := s.Status.GetCondition(kind)
		if c == nil || c.Status != status || !strings.Contains(c.Reason+": "+c.Message, text) {
			return fmt.Errorf("conditions %s", conditions(s))
		}
		return nil
	})
}

func keyOf(namespace, name string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: name}
}

// pods returns the running pods of a service that are not being deleted.
func (u *user) pods(name string) []corev1.Pod {
	u.Helper()
	var list corev1.PodList
	if err := u.Kube.List(u.Context(), &list, client.InNamespace(u.namespace), client.MatchingLabels{"serving.knative.dev/service": name}); err != nil {
		u.Fatalf("listing pods: %v", err)
	}
	var live []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			live = append(live, pod)
		}
	}
	return live
}

// waitZero waits until not even a pod that is being deleted is left, so that the next request is a cold one.
func (u *user) waitZero(name string) {
	u.Helper()
	u.wait(90*time.Second, name+" is at zero", func() error {
		var list corev1.PodList
		err := u.Kube.List(u.Context(), &list, client.InNamespace(u.namespace), client.MatchingLabels{"serving.knative.dev/service": name})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d pods are left", len(list.Items))
		}
		return err
	})
}

func (u *user) waitPods(limit time.Duration, name string, want int) {
	u.Helper()
	u.wait(limit, fmt.Sprintf("%s has %d pods", name, want), func() error {
		if got := len(u.pods(name)); got != want {
			return fmt.Errorf("it has %d", got)
		}
		return nil
	})
}

// parked asks the proxy's metrics and returns an error unless so many requests for the revision are parked now.
func (u *user) parked(revision string, want int) error {
	request, err := http.NewRequestWithContext(u.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", u.MetricsPort), http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "weft_requests_parked{") && strings.Contains(line, fmt.Sprintf("namespace=%q,revision=%q", u.namespace, revision)) {
			if value := strings.Fields(line)[1]; value != strconv.Itoa(want) {
				return fmt.Errorf("%s requests are parked", value)
			}
			return nil
		}
	}
	return fmt.Errorf("the proxy has no metric of parked requests for %s", revision)
}

// answer is one response, read whole.
type answer struct {
	status int
	body   string
	header http.Header
}

// answered is the error that an unexpected answer is.
func answered(a answer, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("status %d, body %q", a.status, a.body)
}

// get sends one GET to a URL of the platform through its gateway.
func (u *user) get(target *apis.URL, path string) (answer, error) {
	return u.do(u.Context(), http.MethodGet, target, path, nil)
}

func (u *user) do(ctx context.Context, method string, target *apis.URL, path string, body io.Reader) (answer, error) {
	base, err := url.Parse(target.String())
	if err != nil {
		return answer{}, err
	}
	request, err := http.NewRequestWithContext(ctx, method, base.String()+path, body)
	if err != nil {
		return answer{}, err
	}
	response, err := u.HTTP.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(data), response.Header}, err
}

// mustGet fails the test unless the answer is 200, and returns its body.
func (u *user) mustGet(target *apis.URL, path string) string {
	u.Helper()
	a, err := u.get(target, path)
	if err != nil {
		u.Fatalf("GET %s%s: %v", target, path, err)
	}
	if a.status != http.StatusOK {
		u.Fatalf("GET %s%s: status %d, want 200: %s", target, path, a.status, a.body)
	}
	return a.body
}

// traffic is a constant flow of requests that notes every answer that is not 200.
type traffic struct {
	stop     chan struct{}
	done     sync.WaitGroup
	sent     atomic.Int64
	mu       sync.Mutex // guards failures
	failures []string
}

// send starts workers that send requests to target until the test calls end.
func (u *user) send(workers int, target *apis.URL, path string) *traffic {
	l := &traffic{stop: make(chan struct{})}
	for range workers {
		l.done.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				a, err := u.get(target, path)
				l.sent.Add(1)
				if err != nil || a.status != http.StatusOK {
					l.mu.Lock()
					l.failures = append(l.failures, fmt.Sprintf("%v %d %s", err, a.status, a.body))
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

// end stops the workers and returns how many requests were sent and what failed.
func (l *traffic) end() (sent int64, failures []string) {
	close(l.stop)
	l.done.Wait()
	return l.sent.Load(), l.failures
}

// waitSent waits for n more requests, so that a change falls into traffic that is known to flow.
func (l *traffic) waitSent(u *user, n int64) {
	u.Helper()
	target := l.sent.Load() + n
	u.wait(60*time.Second, fmt.Sprintf("%d more requests", n), func() error {
		if got := l.sent.Load(); got < target {
			return fmt.Errorf("%d of %d", got, target)
		}
		return nil
	})
}

func (u *user) proxyPID() int {
	u.Helper()
	pid, err := u.ProxyPID()
	if err != nil {
		u.Fatal(err)
	}
	return pid
}

// dialGateway opens a connection to a port of the gateway, whatever host is to be asked for.
func (u *user) dialGateway(ctx context.Context, port int) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// health is the gRPC client of a host behind a port of the gateway.
func (u *user) health(host string, port int, by credentials.TransportCredentials) grpc_health_v1.HealthClient {
	u.Helper()
	conn, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(by),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return u.dialGateway(ctx, port) }))
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() { _ = conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}
