package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weft-dev/weft/mesh/authority"
	"github.com/weft-dev/weft/mesh/certificate"
	"github.com/weft-dev/weft/mesh/config"
)

// root signs for all tests: making a key takes longer than most of them.
var root = sync.OnceValues(func() (*authority.Authority, error) {
	dir, err := os.MkdirTemp("", "weft-certificate-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return authority.Open(authority.Options{Dir: dir, Name: "test", Domain: "test"})
})

func issue(tb testing.TB, names ...string) *tls.Certificate {
	tb.Helper()
	a, err := root()
	if err != nil {
		tb.Fatal(err)
	}
	c, err := a.Issue(names...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func resource(tb testing.TB, name string, dnsNames ...string) *config.Certificate {
	tb.Helper()
	r, err := certificate.Resource(name, dnsNames, issue(tb, dnsNames...))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestTableFindsByName(t *testing.T) {
	t.Parallel()
	table := certificate.NewTable()
	exact, wildcard, second := resource(t, "secret/a/exact", "hello.a.test"), resource(t, "local/*.a.test", "*.a.test"), resource(t, "secret/a/second", "hello.a.test", "b.test")
	if err := table.Apply([]*config.Certificate{second, wildcard, exact}, nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, ask string
		want      *config.Certificate
	}{
		{name: "exact before wildcard, first by name", ask: "hello.a.test", want: exact},
		{name: "wildcard", ask: "other.a.test", want: wildcard},
		{name: "any case and final dot", ask: "Other.A.test.", want: wildcard},
		{name: "a wildcard stands for one label", ask: "x.other.a.test"},
		{name: "a wildcard stands not for none", ask: "a.test"},
		{name: "second name", ask: "b.test", want: second},
		{name: "unknown", ask: "c.test"},
		{name: "no name", ask: ""},
		{name: "asking for the wildcard itself", ask: "*.a.test", want: wildcard},
		{name: "only a dot", ask: "."},
	} {
		got, err := table.Certificate(&tls.ClientHelloInfo{ServerName: tc.ask})
		if err != nil {
			t.Fatal(err)
		}
		var chain [][]byte
		if got != nil {
			chain = got.Certificate
		}
		if diff := cmp.Diff(tc.want.GetChain(), chain); diff != "" {
			t.Errorf("%s: -want +got\n%s", tc.name, diff)
		}
	}
	if got, _ := table.Certificate(&tls.ClientHelloInfo{ServerName: "hello.a.test"}); got.Leaf == nil {
		t.Error("Leaf is not set: each handshake would parse the certificate again")
	}
	if err := table.Apply(nil, []string{exact.GetName(), wildcard.GetName()}); err != nil {
		t.Fatal(err)
	}
	if got, _ := table.Certificate(&tls.ClientHelloInfo{ServerName: "hello.a.test"}); got == nil || !cmp.Equal(got.Certificate, second.GetChain()) {
		t.Error("the name did not go to the next certificate when the first was removed")
	}
	if got, _ := table.Certificate(&tls.ClientHelloInfo{ServerName: "other.a.test"}); got != nil {
		t.Error("a removed certificate is presented")
	}
}

func TestTableTakesAllOrNothing(t *testing.T) {
	t.Parallel()
	table := certificate.NewTable()
	good, bad := resource(t, "secret/a/good", "good.test"), resource(t, "secret/a/bad", "bad.test")
	bad.Key = resource(t, "x", "bad.test").GetKey()
	if err := table.Apply([]*config.Certificate{good, bad}, nil); !errors.Is(err, certificate.ErrMismatch) || !strings.Contains(err.Error(), "secret/a/bad") {
		t.Errorf("error %v", err)
	}
	if got, _ := table.Certificate(&tls.ClientHelloInfo{ServerName: "good.test"}); got != nil {
		t.Error("a part of a rejected change was taken")
	}
	for _, name := range []string{"UPPER.test", "dot.test.", "a.*.test", "*", "*.", ""} {
		r := resource(t, "secret/a/name", "name.test")
		r.DnsNames = []string{name}
		if err := table.Apply([]*config.Certificate{r}, nil); err == nil {
			t.Errorf("DNS name %q was taken", name)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	table := certificate.NewTable()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(table)
	if err := table.Apply([]*config.Certificate{resource(t, "secret/a/one", "one.test")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one.test", "two.test", ""} {
		if _, err := table.Certificate(&tls.ClientHelloInfo{ServerName: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP weft_tls_unknown_names_total TLS handshakes refused because no certificate is for the name that the client asked for.
		# TYPE weft_tls_unknown_names_total counter
		weft_tls_unknown_names_total 2
	`), "weft_tls_unknown_names_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "weft_certificate_expiry_seconds" {
			continue
		}
		left, label := f.GetMetric()[0].GetGauge().GetValue(), f.GetMetric()[0].GetLabel()[0]
		if whole := authority.Lifetime.Seconds(); left > whole || left < whole-60 || label.GetName() != "certificate" || label.GetValue() != "secret/a/one" {
			t.Errorf("%v: %v seconds", label, left)
		}
		return
	}
	t.Error("no metric weft_certificate_expiry_seconds")
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestParsePEM(t *testing.T) {
	t.Parallel()
	c, other := issue(t, "a.test"), issue(t, "b.test")
	chain := pemOf("CERTIFICATE", c.Certificate[0])
	pkcs8, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := x509.MarshalPKCS8PrivateKey(other.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, chain, key string
		want             error
		text             string
	}{
		{name: "good", chain: chain, key: pemOf("PRIVATE KEY", pkcs8)},
		{name: "text around", chain: "subject: a\n" + chain + "end", key: "x\n" + pemOf("PRIVATE KEY", pkcs8)},
		{name: "parameters before the key", chain: chain, key: pemOf("EC PARAMETERS", []byte{1, 2}) + pemOf("PRIVATE KEY", pkcs8)},
		{name: "intermediate", chain: chain + pemOf("CERTIFICATE", other.Certificate[0]), key: pemOf("PRIVATE KEY", pkcs8)},
		{name: "key of another", chain: chain, key: pemOf("PRIVATE KEY", otherKey), want: certificate.ErrMismatch},
		{name: "wrong order", chain: pemOf("CERTIFICATE", other.Certificate[0]) + chain, key: pemOf("PRIVATE KEY", pkcs8), want: certificate.ErrMismatch},
		{name: "empty chain", key: pemOf("PRIVATE KEY", pkcs8), want: certificate.ErrMalformed, text: "no PEM block of type CERTIFICATE"},
		{name: "empty key", chain: chain, want: certificate.ErrMalformed, text: "no PEM block with a private key"},
		{name: "swapped", chain: pemOf("PRIVATE KEY", pkcs8), key: chain, want: certificate.ErrMalformed},
		{name: "rotten", chain: pemOf("CERTIFICATE", []byte("rotten")), key: pemOf("PRIVATE KEY", pkcs8), want: certificate.ErrMalformed, text: "certificate 1"},
	} {
		got, err := certificate.ParsePEM([]byte(tc.chain), []byte(tc.key))
		if !errors.Is(err, tc.want) || tc.want == nil && got.Leaf == nil {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.want)
		}
		if tc.want != nil && !strings.Contains(fmt.Sprint(err), tc.text) {
			t.Errorf("%s: error %v, want text %q", tc.name, err, tc.text)
		}
	}
}

func FuzzParsePEM(f *testing.F) {
	c := issue(f, "a.test")
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(pemOf("CERTIFICATE", c.Certificate[0])), []byte(pemOf("PRIVATE KEY", key)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), []byte{})
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		got, err := certificate.ParsePEM(chain, key)
		if err != nil {
			return
		}
		r, err := certificate.Resource("secret/a/b", nil, got)
		if err != nil {
			t.Fatalf("a certificate that parses cannot be sent: %v", err)
		}
		if _, err := certificate.Parse(r); err != nil {
			t.Fatalf("a certificate that is sent cannot be used: %v", err)
		}
	})
}

func BenchmarkTableFind(b *testing.B) {
	table := certificate.NewTable()
	if err := table.Apply([]*config.Certificate{resource(b, "local/*.a.test", "*.a.test")}, nil); err != nil {
		b.Fatal(err)
	}
	hello := &tls.ClientHelloInfo{ServerName: "hello.a.test"}
	b.ReportAllocs()
	for b.Loop() {
		if c, _ := table.Certificate(hello); c == nil {
			b.Fatal("not found")
		}
	}
}
