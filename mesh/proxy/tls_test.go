package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/weft-dev/weft/mesh/authority"
	"github.com/weft-dev/weft/mesh/certificate"
	"github.com/weft-dev/weft/mesh/config"
)

// secure is a harness with an HTTPS listener and a root that its clients trust.
type secure struct {
	*harness
	root  *authority.Authority
	https string
}

func startTLS(t *testing.T) *secure {
	t.Helper()
	root, err := authority.Open(authority.Options{Dir: t.TempDir(), Name: "test", Domain: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s := &secure{harness: start(t), root: root}
	s.apply(config.ListenerType, &config.Listener{Name: "https", Address: "127.0.0.3", Protocol: config.Listener_HTTPS})
	s.https = s.Addresses()["https"]
	return s
}

// certify has the proxy present a new certificate for names and returns it.
func (s *secure) certify(name string, dnsNames ...string) *x509.Certificate {
	s.t.Helper()
	c, err := s.root.Issue(dnsNames...)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := certificate.Resource(name, dnsNames, c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.apply(config.CertificateType, r)
	return c.Leaf
}

func (s *secure) config(serverName string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.root.Root())
	return &tls.Config{RootCAs: pool, ServerName: serverName}
}

// handshake connects once.
func (s *secure) handshake(cfg *tls.Config) (*tls.Conn, error) {
	d := &tls.Dialer{Config: cfg}
	conn, err := d.DialContext(s.t.(*testing.T).Context(), "tcp", s.https)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*tls.Conn), nil
}

// browser sends requests for any host to the HTTPS listener.
func (s *secure) browser(h2 bool) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: s.config(""), ForceAttemptHTTP2: h2, MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.https)
		},
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestCertificateByName(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	wildcard, exact := s.certify("local/*.a.test", "*.a.test"), s.certify("secret/a/b", "b.a.test")
	for name, want := range map[string]*x509.Certificate{"x.a.test": wildcard, "B.a.test": exact} {
		conn, err := s.handshake(s.config(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(want) {
			t.Errorf("%s: presented the certificate for %v", name, got.DNSNames)
		}
	}
	for _, name := range []string{"other.test", "x.y.a.test", ""} {
		cfg := s.config(name)
		cfg.InsecureSkipVerify = name == "" // Without a name there is nothing to verify.
		if _, err := s.handshake(cfg); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("asking for %q: %v, want the alert unrecognized name", name, err)
		}
	}
}

func TestLeastVersion(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("local/a.test", "a.test")
	speak := func(version uint16) error {
		cfg := s.config("a.test")
		cfg.MinVersion, cfg.MaxVersion = version, version
		_, err := s.handshake(cfg)
		return err
	}
	if err := speak(tls.VersionTLS11); err == nil {
		t.Error("speaks TLS 1.1")
	}
	if err := speak(tls.VersionTLS12); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	before := s.Addresses()["https"]
	s.apply(config.ListenerType, &config.Listener{
		Name: "https", Address: "127.0.0.3", Protocol: config.Listener_HTTPS, MinTlsVersion: config.TLSVersion_TLS_1_3,
	})
	if after := s.Addresses()["https"]; after != before {
		t.Fatalf("the socket moved from %s to %s", before, after)
	}
	eventually(t, "TLS 1.2 refused", func() bool { return speak(tls.VersionTLS12) != nil })
	if err := speak(tls.VersionTLS13); err != nil {
		t.Errorf("TLS 1.3: %v", err)
	}
}

func TestHTTPOverTLS(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("local/*.test", "*.test")
	s.serve("a.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "T")
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Proto")+" "+r.Header.Get("Forwarded"))
		w.Header().Set("T", "end")
	}))
	for _, h2 := range []bool{false, true} {
		res, err := s.browser(h2).Get("https://a.test:8443/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if want := `https for=127.0.0.1;host="a.test:8443";proto=https`; string(body) != want {
			t.Errorf("h2 %t: headers at the instance %q, want %q", h2, body, want)
		}
		if got := res.ProtoMajor == 2; got != h2 || res.Trailer.Get("T") != "end" {
			t.Errorf("h2 %t: %s, trailer %v", h2, res.Proto, res.Trailer)
		}
	}
	// Whoever speaks no TLS at this port is told so.
	res, err := http.Get("http://" + s.https)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: status %d, want 400", res.StatusCode)
	}
}

func TestWebSocketOverTLS(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("local/ws.test", "ws.test")
	b := s.serve("ws.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrading: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, append([]byte("echo "), message...)) != nil {
				return
			}
		}
	}))
	dialer := &websocket.Dialer{
		TLSClientConfig: s.config("ws.test"),
		NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.https)
		},
	}
	conn, res, err := dialer.DialContext(t.Context(), "wss://ws.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	message := strings.Repeat("long", 50_000)
	if err := conn.WriteMessage(websocket.BinaryMessage, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "echo "+message {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	_ = conn.Close()
	eventually(t, "connection ended", func() bool { return s.InFlight(b.GetName()) == 0 })
}

// TestRotation changes the certificate while requests flow: none fails, those on open connections go on there, and new connections
// see the new one. Sessions of before go on too.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("secret/a/b", "a.test")
	s.serve("a.test", text("ok"))
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			keep, once := s.browser(i%2 == 0), s.browser(false)
			once.Transport.(*http.Transport).DisableKeepAlives = true
			for {
				for _, client := range []*http.Client{keep, once} {
					res, err := client.Get("https://a.test/")
					if err != nil {
						t.Errorf("request failed: %v", err)
						return
					}
					_ = res.Body.Close()
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	sessions := s.config("a.test")
	sessions.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	resumed := func() bool {
		conn, err := s.handshake(sessions)
		if err != nil {
			t.Errorf("resuming: %v", err)
			return false
		}
		// Tickets come after the handshake, with the first bytes that the server has to say.
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		return conn.ConnectionState().DidResume
	}
	resumed()
	for range 20 {
		want := s.certify("secret/a/b", "a.test")
		conn, err := s.handshake(s.config("a.test"))
		if err != nil {
			t.Fatal(err)
		}
		if !conn.ConnectionState().PeerCertificates[0].Equal(want) {
			t.Fatal("a new connection sees an old certificate")
		}
	}
	if !resumed() {
		t.Error("the session was not resumed")
	}
	close(stop)
	workers.Wait()
}

func TestClientGoneOverTLS(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("local/gone.test", "gone.test")
	b := revision("gone")
	s.backend(b)
	s.route("gone.test", b.GetName())
	conn, err := s.handshake(s.config("gone.test"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: gone.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n")
	eventually(t, "parked", func() bool { return s.Waiting(b.GetName()) == 1 })
	_ = conn.Close()
	eventually(t, "place freed", func() bool { return s.Waiting(b.GetName()) == 0 && s.InFlight(b.GetName()) == 0 })
}

// TestSharedSocket turns a plain listener into one with TLS and back, without refusing a connection.
func TestSharedSocket(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("local/a.test", "a.test")
	s.serve("a.test", text("ok"))
	listener := &config.Listener{Name: "https", Address: "127.0.0.3", Protocol: config.Listener_HTTP}
	for range 3 {
		s.apply(config.ListenerType, listener)
		eventually(t, "plain", func() bool {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.https, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "a.test"
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				return false
			}
			_ = res.Body.Close()
			return res.StatusCode == http.StatusOK
		})
		s.apply(config.ListenerType, &config.Listener{Name: "https", Address: "127.0.0.3", Protocol: config.Listener_HTTPS})
		eventually(t, "TLS", func() bool {
			_, err := s.handshake(s.config("a.test"))
			return err == nil
		})
	}
}

func TestKeysAreNotShown(t *testing.T) {
	t.Parallel()
	s := startTLS(t)
	s.certify("secret/a/b", "a.test")
	rec := httptest.NewRecorder()
	s.Admin(s.metrics.ColdStarts()).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/config", http.NoBody))
	if body := rec.Body.String(); !strings.Contains(body, `"secret/a/b"`) || !strings.Contains(body, `"chain"`) || strings.Contains(body, `"key"`) {
		t.Errorf("the dump must have the certificate and not its key: %s", body)
	}
}
