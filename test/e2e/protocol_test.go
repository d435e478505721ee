package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/api/resource"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

func TestHeadersOfARequest(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("headers")
	var got struct {
		Host    string
		Headers http.Header
	}
	if err := json.Unmarshal([]byte(u.mustGet(s.Status.URL, "/headers")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Host != s.Status.URL.Host {
		t.Errorf("Host is %q, want %q", got.Host, s.Status.URL.Host)
	}
	if v := got.Headers.Get("X-Forwarded-For"); v != "127.0.0.1" {
		t.Errorf("X-Forwarded-For is %q, want the client's address", v)
	}
	if v := got.Headers.Get("X-Forwarded-Proto"); v != "http" {
		t.Errorf("X-Forwarded-Proto is %q, want http", v)
	}
	if v := got.Headers.Get("Forwarded"); !strings.Contains(v, "for=127.0.0.1") || !strings.Contains(v, "proto=http") {
		t.Errorf("Forwarded is %q, want for= and proto=", v)
	}
	for name := range got.Headers {
		if strings.HasPrefix(name, "Knative-Serving-") {
			t.Errorf("the container got the platform's own header %s", name)
		}
	}
}

func TestLargeBodyWithTrailerStreamsBothWays(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("echo")
	// 32 MiB both ways at once: neither side may wait for the whole of the other.
	body := make([]byte, 32<<20)
	_, _ = rand.Read(body)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Status.URL.String()+"/echo", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := u.HTTP.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, body) {
		t.Errorf("the echo has %d bytes and differs from the %d that were sent", len(got), len(body))
	}
	if v := response.Trailer.Get("X-Length"); v != strconv.Itoa(len(body)) {
		t.Errorf("trailer X-Length is %q, want %d", v, len(body))
	}
}

func TestHTTP2WithPriorKnowledgeToTheContainer(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("h2c", portName("h2c"))
	var got struct{ Proto string }
	if err := json.Unmarshal([]byte(u.mustGet(s.Status.URL, "/headers")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Proto != "HTTP/2.0" {
		t.Errorf("the container was asked by %s, want HTTP/2.0", got.Proto)
	}
}

func TestGRPCUnaryAndStreaming(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("grpc", portName("h2c"), annotate("window", "6s"))
	u.waitZero("grpc")
	client := u.health(s.Status.URL.Host, u.HTTPPort, insecure.NewCredentials())
	// The first call finds the service at zero.
	response, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || response.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("a unary call to a service at zero: %v, %v", response, err)
	}
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("the status in a trailers-only response is %v, want NotFound", err)
	}
	stream, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("the first message of a stream that stays open: %v, %v", first, err)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("socket", annotate("window", "6s"))
	u.waitZero("socket")
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return u.dialGateway(ctx, u.HTTPPort)
	}}
	conn, response, err := dialer.DialContext(t.Context(), "ws://"+s.Status.URL.Host+"/websocket", nil)
	if err != nil {
		t.Fatalf("dialling through the gateway to a service at zero: %v", err)
	}
	defer conn.Close()
	defer response.Body.Close()
	for i := range 10 {
		want := fmt.Sprintf("message %d", i)
		if err := conn.WriteMessage(websocket.TextMessage, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.ReadMessage(); err != nil || string(got) != want {
			t.Fatalf("echo is %q, %v, want %q", got, err, want)
		}
	}
}

func TestTimeoutOfARevision(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("slow", timeout(1))
	if a, err := u.get(s.Status.URL, "/sleep?for=200ms"); err != nil || a.status != http.StatusOK {
		t.Errorf("a request within the timeout: %v, status %d, want 200", err, a.status)
	}
	a, err := u.get(s.Status.URL, "/sleep?for=10s")
	if err != nil || a.status != http.StatusGatewayTimeout {
		t.Errorf("a request beyond the timeout: %v, status %d, want 504", err, a.status)
	}
}

func TestConcurrencyLimitHoldsExactly(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("single", concurrency(1), annotate("max-scale", "1"))
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if a, err := u.get(s.Status.URL, "/sleep?for=50ms"); err != nil || a.status != http.StatusOK {
				t.Errorf("%v, status %d %s", err, a.status, a.body)
			}
		})
	}
	wg.Wait()
	if got := u.mustGet(s.Status.URL, "/peak"); got != "1\n" {
		t.Errorf("the container saw %s requests at once, want 1", strings.TrimSpace(got))
	}
}

func TestScaleUpUnderLoad(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("busy", annotate("target", "2"), annotate("window", "6s"), annotate("max-scale", "5"))
	flow := u.send(12, s.Status.URL, "/sleep?for=100ms")
	u.waitPods(60*time.Second, "busy", 5)
	sent, failures := flow.end()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed while scaling up, the first: %s", len(failures), sent, failures[0])
	}
	u.waitZero("busy")
}

func TestServiceToService(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	caller := u.deploy("caller")
	callee := u.deploy("callee", annotate("window", "6s"), func(s *servingv1.Service) {
		s.Labels = map[string]string{"networking.knative.dev/visibility": "cluster-local"}
	})
	u.waitZero("callee")
	if got, want := callee.Status.URL.String(), fmt.Sprintf("http://callee.%s.svc.cluster.local", u.namespace); got != want {
		t.Errorf("a cluster-local service's url is %q, want %q", got, want)
	}
	for _, host := range []string{"callee." + u.namespace + ".svc.cluster.local", "callee." + u.namespace} {
		a, err := u.get(caller.Status.URL, "/fetch?url=http://"+host+"/")
		if err != nil || a.status != http.StatusOK || a.body != "callee-00001 \n" {
			t.Errorf("calling %s from a pod: %v, status %d %q", host, err, a.status, a.body)
		}
	}
	if a, err := u.get(callee.Status.URL, "/"); err != nil || a.status != http.StatusNotFound {
		t.Errorf("the gateway answers %d, %v for a cluster-local host, want 404", a.status, err)
	}
	if out := u.mustGet(caller.Status.URL, "/fetch?url=http://"+strings.TrimPrefix(caller.Status.URL.String(), "http://")+"/hostname"); out == "" {
		t.Error("a pod cannot reach a public host")
	}
}
