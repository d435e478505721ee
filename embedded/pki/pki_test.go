package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/embedded/pki"
)

const day = 24 * time.Hour

func options(dir string, now time.Time, addresses ...string) pki.Options {
	opts := pki.Options{Dir: dir, NodeName: "n1", Now: func() time.Time { return now }}
	for _, a := range addresses {
		opts.Addresses = append(opts.Addresses, netip.MustParseAddr(a))
	}
	return opts
}

func ensure(t *testing.T, opts pki.Options) pki.Files {
	t.Helper()
	files, err := pki.Ensure(opts)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func load(t *testing.T, pair pki.Pair) *x509.Certificate {
	t.Helper()
	loaded, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Leaf
}

// pool trusts one authority.
func pool(t *testing.T, pair pki.Pair) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	p.AddCert(load(t, pair))
	return p
}

func TestServingNames(t *testing.T) {
	t.Parallel()
	files := ensure(t, options(t.TempDir(), time.Now(), "10.207.0.1", "10.208.0.1"))
	tests := []struct {
		name string
		pair pki.Pair
		host string
		want bool
	}{
		{name: "loopback", pair: files.APIServer, host: "127.0.0.1", want: true},
		{name: "gateway", pair: files.APIServer, host: "10.207.0.1", want: true},
		{name: "cluster ip", pair: files.APIServer, host: "10.208.0.1", want: true},
		{name: "service", pair: files.APIServer, host: "kubernetes.default.svc", want: true},
		{name: "service with domain", pair: files.APIServer, host: "kubernetes.default.svc.cluster.local", want: true},
		{name: "other address", pair: files.APIServer, host: "10.207.0.2", want: false},
		{name: "kubelet", pair: files.Kubelet, host: "10.207.0.1", want: true},
		{name: "kubelet by name", pair: files.Kubelet, host: "n1", want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, test.pair).Verify(x509.VerifyOptions{Roots: pool(t, files.CA), DNSName: test.host})
			if got := err == nil; got != test.want {
				t.Errorf("valid for %s: %t (%v), want %t", test.host, got, err, test.want)
			}
		})
	}
}

func TestClientIdentities(t *testing.T) {
	t.Parallel()
	files := ensure(t, options(t.TempDir(), time.Now()))
	type identity struct {
		User   string
		Groups []string
	}
	tests := []struct {
		name      string
		pair      pki.Pair
		authority pki.Pair
		want      identity
	}{
		{name: "admin", pair: files.Admin, authority: files.CA, want: identity{"weft-admin", []string{"system:masters"}}},
		{name: "scheduler", pair: files.Scheduler, authority: files.CA, want: identity{User: "system:kube-scheduler"}},
		{name: "node", pair: files.Node, authority: files.CA, want: identity{"system:node:n1", []string{"system:nodes"}}},
		{
			name: "kubelet client", pair: files.KubeletClient, authority: files.CA,
			want: identity{"kube-apiserver-kubelet-client", []string{"system:masters"}},
		},
		{name: "front proxy", pair: files.FrontProxyClient, authority: files.FrontProxyCA, want: identity{User: "front-proxy-client"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cert := load(t, test.pair)
			if diff := cmp.Diff(test.want, identity{cert.Subject.CommonName, cert.Subject.Organization}); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
			clientAuth := x509.VerifyOptions{Roots: pool(t, test.authority), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
			if _, err := cert.Verify(clientAuth); err != nil {
				t.Errorf("its authority does not vouch for it as a client: %v", err)
			}
			serverAuth := clientAuth
			serverAuth.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			if _, err := cert.Verify(serverAuth); err == nil {
				t.Error("a client certificate can serve")
			}
		})
	}
}

// TestHandshake uses the files for what they are for.
func TestHandshake(t *testing.T) {
	t.Parallel()
	files := ensure(t, options(t.TempDir(), time.Now()))
	pairOf := func(p pki.Pair) []tls.Certificate {
		pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{
		Certificates: pairOf(files.APIServer), ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(t, files.CA), MinVersion: tls.VersionTLS12,
	}
	server.StartTLS()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: pairOf(files.Admin), RootCAs: pool(t, files.CA), MinVersion: tls.VersionTLS12,
	}}}
	defer client.CloseIdleConnections()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://localhost:"+port, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(body); got != "weft-admin" {
		t.Errorf("server saw %q, want weft-admin", got)
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		// second are the options of the second call.
		second func(dir string) pki.Options
		// want says which certificates are new after it.
		wantServing, wantAdmin, wantCA bool
	}{
		{name: "next day", second: func(dir string) pki.Options { return options(dir, start.Add(day), "10.0.0.1") }},
		{
			name: "a third of the life left", wantServing: true, wantAdmin: true,
			second: func(dir string) pki.Options { return options(dir, start.Add(250*day), "10.0.0.1") },
		},
		{
			name: "another address", wantServing: true,
			second: func(dir string) pki.Options { return options(dir, start.Add(day), "10.0.0.2") },
		},
		{
			name: "authority about to expire", wantServing: true, wantAdmin: true, wantCA: true,
			second: func(dir string) pki.Options { return options(dir, start.Add(9*365*day+day), "10.0.0.1") },
		},
		{
			name: "clock set back before the certificates", wantServing: true, wantAdmin: true,
			second: func(dir string) pki.Options { return options(dir, start.Add(-day), "10.0.0.1") },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "pki")
			files := ensure(t, options(dir, start, "10.0.0.1"))
			serving, admin, ca := load(t, files.APIServer), load(t, files.Admin), load(t, files.CA)
			key := read(t, files.ServiceAccountKey)
			ensure(t, test.second(dir))
			for _, c := range []struct {
				what   string
				before *x509.Certificate
				pair   pki.Pair
				want   bool
			}{{"serving", serving, files.APIServer, test.wantServing}, {"admin", admin, files.Admin, test.wantAdmin}, {"authority", ca, files.CA, test.wantCA}} {
				if got := !c.before.Equal(load(t, c.pair)); got != c.want {
					t.Errorf("%s certificate is new: %t, want %t", c.what, got, c.want)
				}
			}
			if got := read(t, files.ServiceAccountKey); got != key {
				t.Error("the service account key has changed, and with it all tokens are invalid")
			}
			if err := load(t, files.APIServer).CheckSignatureFrom(load(t, files.CA)); err != nil {
				t.Errorf("serving certificate is not signed by the authority: %v", err)
			}
		})
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := ensure(t, options(dir, time.Now()))
	ca := load(t, files.CA)
	if err := errors.Join(os.WriteFile(files.Admin.Cert, []byte("torn"), 0o600), os.Remove(files.Scheduler.Key)); err != nil {
		t.Fatal(err)
	}
	ensure(t, options(dir, time.Now()))
	for name, pair := range map[string]pki.Pair{"admin": files.Admin, "scheduler": files.Scheduler} {
		if err := load(t, pair).CheckSignatureFrom(ca); err != nil {
			t.Errorf("%s certificate was not repaired: %v", name, err)
		}
	}
	if err := os.WriteFile(files.CA.Cert, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Ensure(options(dir, time.Now())); err == nil {
		t.Error("a damaged authority was replaced silently")
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	files := ensure(t, options(dir, time.Now()))
	for path, want := range map[string]os.FileMode{
		dir: 0o700, files.CA.Key: 0o600, files.Admin.Key: 0o600, files.ServiceAccountKey: 0o600, files.CA.Cert: 0o644,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", filepath.Base(path), got, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
