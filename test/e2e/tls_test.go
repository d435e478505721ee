package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"

	"github.com/weft-dev/weft/mesh/authority"
)

// secureURL is the https URL of a host, whatever the platform says is its URL.
func (u *user) secureURL(of *apis.URL) *apis.URL {
	return &apis.URL{Scheme: "https", Host: fmt.Sprintf("%s:%d", of.URL().Hostname(), u.HTTPSPort)}
}

// roots are those of the platform and more.
func (u *user) roots(more ...*x509.Certificate) *x509.CertPool {
	u.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(u.must("trust"))) {
		u.Fatal("weft trust prints no certificate")
	}
	for _, root := range more {
		pool.AddCert(root)
	}
	return pool
}

// secureClient sends https requests for any host to the gateway.
func (u *user) secureClient(roots *x509.CertPool, h2 bool) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2, MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if strings.HasSuffix(address, fmt.Sprintf(":%d", u.HTTPPort)) {
				return u.dialGateway(ctx, u.HTTPPort)
			}
			return u.dialGateway(ctx, u.HTTPSPort)
		},
	}
	u.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// origin is where an answer came from after redirections, and by which version of HTTP.
type origin struct {
	url   string
	major int
}

// fetch reads a whole answer.
func (u *user) fetch(client *http.Client, to *apis.URL, path string) (answer, origin, error) {
	request, err := http.NewRequestWithContext(u.Context(), http.MethodGet, to.String()+path, http.NoBody)
	if err != nil {
		return answer{}, origin{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, origin{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(body), response.Header}, origin{response.Request.URL.String(), response.ProtoMajor}, err
}

// handshake asks for a server name and returns the certificate that is presented.
func (u *user) handshake(cfg *tls.Config) (*x509.Certificate, error) {
	conn, err := u.dialGateway(u.Context(), u.HTTPSPort)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := tls.Client(conn, cfg)
	if err := client.HandshakeContext(u.Context()); err != nil {
		return nil, err
	}
	return client.ConnectionState().PeerCertificates[0], nil
}

func TestHTTPSOfAService(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("hello", env("VERSION", "one"), split(target("", 100, "now")))
	to := u.secureURL(s.Status.URL)

	// As the documentation has it.
	path := strings.TrimSpace(u.must("trust", "--path"))
	out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--cacert", path, to.String()).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "hello-00001 one") {
		t.Errorf("curl --cacert: %v, %q", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "curl", "-sS", to.String()).CombinedOutput(); err == nil {
		t.Errorf("curl trusts the platform without being told to: %q", out)
	}

	roots := u.roots()
	for _, h2 := range []bool{false, true} {
		a, from, err := u.fetch(u.secureClient(roots, h2), to, "/headers")
		if err != nil || a.status != http.StatusOK || (from.major == 2) != h2 {
			t.Fatalf("with h2 %t: %v", h2, answered(a, err))
		}
		var seen struct {
			Headers http.Header `json:"headers"`
		}
		if err := json.Unmarshal([]byte(a.body), &seen); err != nil {
			t.Fatal(err)
		}
		if proto, forwarded := seen.Headers.Get("X-Forwarded-Proto"), seen.Headers.Get("Forwarded"); proto != "https" || !strings.Contains(forwarded, "proto=https") {
			t.Errorf("with h2 %t the instance sees X-Forwarded-Proto %q, Forwarded %q", h2, proto, forwarded)
		}
	}

	// One certificate for the namespace, and none for names that nobody has.
	host := to.URL().Hostname()
	for _, name := range []string{host, "now-" + host} {
		c, err := u.handshake(&tls.Config{RootCAs: roots, ServerName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := "*." + u.namespace + ".localhost"; strings.Join(c.DNSNames, " ") != want {
			t.Errorf("%s: the certificate is for %v, want %s", name, c.DNSNames, want)
		}
	}
	for _, name := range []string{"example.com", "hello.nobody.localhost", "a.b." + host, ""} {
		if _, err := u.handshake(&tls.Config{RootCAs: roots, ServerName: name, InsecureSkipVerify: name == ""}); err == nil ||
			!strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("asking for %q: %v, want the alert unrecognized name", name, err)
		}
	}
	if _, err := u.handshake(&tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("the gateway speaks TLS 1.1")
	}
}

func TestHTTPSWakesAService(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("cold", portName("h2c"), annotate("window", "6s"))
	roots := u.roots()
	u.waitZero("cold")
	if a, _, err := u.fetch(u.secureClient(roots, true), u.secureURL(s.Status.URL), "/"); err != nil || a.status != http.StatusOK {
		t.Errorf("a request to a service at zero: %v", answered(a, err))
	}
	host := s.Status.URL.URL().Hostname()
	client := u.health(host, u.HTTPSPort, credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}))
	if response, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil ||
		response.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("a gRPC call: %v, %v", response, err)
	}
	stream, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("the first message of a stream that stays open: %v, %v", first, err)
	}
}

func TestWebSocketOverTLS(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	s := u.deploy("socket")
	dialer := websocket.Dialer{
		TLSClientConfig: &tls.Config{RootCAs: u.roots(), MinVersion: tls.VersionTLS12},
		NetDialContext:  func(ctx context.Context, _, _ string) (net.Conn, error) { return u.dialGateway(ctx, u.HTTPSPort) },
	}
	conn, response, err := dialer.DialContext(t.Context(), "wss://"+u.secureURL(s.Status.URL).Host+"/websocket", nil)
	if err != nil {
		t.Fatal(err)
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

// issuer is a certificate authority of the user's own, whose certificates are shifted in time.
func issuer(t *testing.T, shift time.Duration) *authority.Authority {
	t.Helper()
	a, err := authority.Open(authority.Options{
		Dir: t.TempDir(), Name: "user", Domain: "example.com", Now: func() time.Time { return time.Now().Add(shift) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// keyPair is what a Secret of type kubernetes.io/tls holds.
func keyPair(t *testing.T, a *authority.Authority, names ...string) map[string][]byte {
	t.Helper()
	c, err := a.Issue(names...)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
}

// setSecret creates or replaces the content of a Secret of type kubernetes.io/tls.
func (u *user) setSecret(name string, data map[string][]byte) {
	u.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: name}, Type: corev1.SecretTypeTLS, Data: data}
	err := u.Kube.Update(u.Context(), secret)
	if err != nil {
		err = u.Kube.Create(u.Context(), secret)
	}
	if err != nil {
		u.Fatalf("writing secret %s: %v", name, err)
	}
}

func leafOf(t *testing.T, data map[string][]byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data[corev1.TLSCertKey])
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestCertificateOfADomainMapping rotates the certificate in a mapping's Secret under load, and puts all kinds of wrong ones there.
func TestCertificateOfADomainMapping(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	u.deploy("hello", annotate("min-scale", "1"))
	const domain, condition = "secure.example.com", servingv1beta1.DomainMappingConditionCertificateProvisioned
	u.claimDomain(domain)
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: domain, Namespace: u.namespace}}
	dm.Spec.Ref, dm.Spec.TLS = knativeService("hello"), &servingv1beta1.SecretTLS{SecretName: "mine"}
	if err := u.Kube.Create(t.Context(), dm); err != nil {
		t.Fatal(err)
	}
	u.waitMapping(domain, condition, corev1.ConditionFalse, `SecretNotFound: Secret "mine" does not exist`)

	ca := issuer(t, 0)
	first := keyPair(t, ca, domain)
	u.setSecret("mine", first)
	u.waitMapping(domain, condition, corev1.ConditionTrue, "CertificateExternallyProvided")
	mapped := u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	to := mapped.Status.URL
	if want := fmt.Sprintf("https://%s:%d", domain, u.HTTPSPort); to.String() != want {
		t.Errorf("URL %s, want %s", to, want)
	}
	roots := u.roots(ca.Root())

	var sent, failed atomic.Int64
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for i := range 4 {
		keep, once := u.secureClient(roots, i%2 == 0), u.secureClient(roots, false)
		once.Transport.(*http.Transport).DisableKeepAlives = true
		workers.Go(func() {
			for {
				for _, client := range []*http.Client{keep, once} {
					sent.Add(1)
					if a, _, err := u.fetch(client, to, "/"); err != nil || a.status != http.StatusOK {
						failed.Add(1)
						t.Errorf("during rotation: %v", answered(a, err))
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	presented := func(want *x509.Certificate) {
		t.Helper()
		u.wait(20*time.Second, "the certificate is presented", func() error {
			got, err := u.handshake(&tls.Config{RootCAs: roots, ServerName: domain})
			if err == nil && !got.Equal(want) {
				err = fmt.Errorf("another is presented, valid from %s", got.NotBefore)
			}
			return err
		})
	}
	last := first
	for range 5 {
		presented(leafOf(t, last))
		last = keyPair(t, ca, "*.example.com")
		u.setSecret("mine", last)
	}
	presented(leafOf(t, last))

	mismatch := keyPair(t, ca, domain)
	mismatch[corev1.TLSPrivateKeyKey] = first[corev1.TLSPrivateKeyKey]
	for _, tc := range []struct {
		data map[string][]byte
		want string
	}{
		{mismatch, `SecretInvalid: Secret "mine": the private key does not belong to the certificate`},
		{keyPair(t, issuer(t, -100*24*time.Hour), domain), `CertificateExpired: the certificate in Secret "mine" expired on `},
		{keyPair(t, ca, "other.example.com"), `CertificateNotForHost: the certificate in Secret "mine" is for other.example.com, and not for secure.example.com`},
	} {
		u.setSecret("mine", tc.data)
		u.waitMapping(domain, condition, corev1.ConditionFalse, tc.want)
		presented(leafOf(t, last))
	}
	u.setSecret("mine", first)
	u.waitMapping(domain, apis.ConditionReady, corev1.ConditionTrue, "")
	presented(leafOf(t, first))
	close(stop)
	workers.Wait()
	if failed.Load() > 0 || sent.Load() < 50 {
		t.Errorf("%d of %d requests failed", failed.Load(), sent.Load())
	}

	if err := u.Kube.Delete(t.Context(), dm); err != nil {
		t.Fatal(err)
	}
	u.wait(20*time.Second, "the certificate is withdrawn", func() error {
		if _, err := u.handshake(&tls.Config{RootCAs: roots, ServerName: domain}); err == nil {
			return fmt.Errorf("it is still presented")
		}
		return nil
	})
}

// TestExternalDomainTLS changes what holds for all services; so it is not parallel.
func TestExternalDomainTLS(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("hello", split(target("", 100, "now")))
	u.waitCondition("hello", servingv1.ServiceConditionRoutesReady, corev1.ConditionTrue, "")
	host := s.Status.URL.URL().Hostname()
	plain := fmt.Sprintf("http://%s:%d", host, u.HTTPPort)
	secure := fmt.Sprintf("https://%s:%d", host, u.HTTPSPort)
	client := u.secureClient(u.roots(), true)
	expect := func(what, url, condition string) *servingv1.Service {
		t.Helper()
		u.wait(20*time.Second, what, func() (err error) {
			if s, err = u.load("hello"); err != nil {
				return err
			}
			var r servingv1.Route
			if err := u.Kube.Get(t.Context(), keyOf(u.namespace, "hello"), &r); err != nil {
				return err
			}
			c := r.Status.GetCondition(servingv1.RouteConditionCertificateProvisioned)
			if c == nil {
				return fmt.Errorf("no condition of the certificate, conditions %s", conditions(s))
			}
			tag := tagURL(s, "now")
			if got := fmt.Sprintf("%s %s", c.Status, c.Reason); got != condition || s.Status.URL.String() != url || tag.Scheme != s.Status.URL.Scheme || !s.IsReady() {
				return fmt.Errorf("url %s, tag at %s, certificate %s, conditions %s", s.Status.URL, tag, got, conditions(s))
			}
			return nil
		})
		return s
	}
	expect("off", plain, "True TLSNotEnabled")

	u.configure("config-network", map[string]string{"external-domain-tls": "Enabled"})
	expect("on", secure, "True ")
	for _, to := range []*apis.URL{s.Status.URL, tagURL(s, "now"), apis.HTTP(fmt.Sprintf("%s:%d", host, u.HTTPPort))} {
		if a, _, err := u.fetch(client, to, "/"); err != nil || !strings.HasPrefix(a.body, "hello-00001") {
			t.Errorf("%s: %v", to, answered(a, err))
		}
	}
	// A service that comes later has its certificate when it is ready.
	later := u.deploy("later")
	if a, _, err := u.fetch(client, later.Status.URL, "/"); err != nil || !strings.HasPrefix(later.Status.URL.String(), "https://") || a.status != http.StatusOK {
		t.Errorf("%s: %v", later.Status.URL, answered(a, err))
	}

	u.configure("config-network", map[string]string{"http-protocol": "Redirected"})
	u.wait(20*time.Second, "plain requests are redirected", func() error {
		a, from, err := u.fetch(client, apis.HTTP(fmt.Sprintf("%s:%d", host, u.HTTPPort)), "/")
		if err != nil || a.status != http.StatusOK || from.url != secure+"/" {
			return answered(a, err)
		}
		return nil
	})

	u.update("hello", func(s *servingv1.Service) {
		s.Annotations["networking.knative.dev/disable-external-domain-tls"] = "true"
	})
	expect("off by annotation", plain, "True TLSNotEnabled")
	u.update("hello", func(s *servingv1.Service) {
		delete(s.Annotations, "networking.knative.dev/disable-external-domain-tls")
	})
	expect("on again", secure, "True ")

	u.configure("config-network", map[string]string{"external-domain-tls": "Disabled", "http-protocol": "Enabled"})
	expect("off again", plain, "True TLSNotEnabled")
	// HTTPS stays at hand.
	if a, _, err := u.fetch(client, u.secureURL(s.Status.URL), "/"); err != nil || a.status != http.StatusOK {
		t.Errorf("https with external-domain-tls off: %v", answered(a, err))
	}
}

// TestRestartKeepsTheAuthority kills weft under https load. It is not parallel, as the other tests that do so.
func TestRestartKeepsTheAuthority(t *testing.T) {
	u := newUser(t, shared)
	s := u.deploy("trusted", annotate("min-scale", "1"))
	before := u.must("trust")
	client := u.secureClient(u.roots(), true)
	to := u.secureURL(s.Status.URL)
	var sent, failed atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if a, _, err := u.fetch(client, to, "/"); err != nil || a.status != http.StatusOK {
				failed.Add(1)
				t.Errorf("while weft restarts: %v", answered(a, err))
			}
			sent.Add(1)
		}
	}()
	if err := shared.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := shared.Run(); err != nil {
		t.Fatal(err)
	}
	target := sent.Load() + 50
	u.wait(30*time.Second, "requests after the restart", func() error {
		if n := sent.Load(); n < target {
			return fmt.Errorf("%d of %d", n, target)
		}
		return nil
	})
	close(stop)
	<-done
	if after := u.must("trust"); after != before {
		t.Error("weft trust prints another root after the restart")
	}
	if _, _, err := u.fetch(u.secureClient(u.roots(), false), to, "/"); err != nil {
		t.Errorf("a new connection after the restart: %v", err)
	}
	if out := u.must("status"); !strings.Contains(out, fmt.Sprintf(":%d", u.HTTPSPort)) {
		t.Errorf("weft status does not show the HTTPS port:\n%s", out)
	}
}
