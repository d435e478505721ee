package authority_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-dev/weft/mesh/authority"
)

func open(t *testing.T, o authority.Options) *authority.Authority {
	t.Helper()
	a, err := authority.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// trusted reads the root as a client does.
func trusted(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(authority.RootPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		t.Fatalf("no certificate in %q", data)
	}
	return pool
}

func TestClientsBelieveWhatIsIssued(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	a := open(t, authority.Options{Dir: dir, Name: "weft", Domain: "localhost"})
	if a.Replaced() != "" {
		t.Errorf("Replaced() = %q for the first root", a.Replaced())
	}
	c, err := a.Issue("*.default.localhost", "shop.localhost")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"hello.default.localhost": true, "shop.localhost": true, "a.b.default.localhost": false, "default.localhost": false, "example.com": false,
	} {
		_, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: trusted(t, dir)})
		if (err == nil) != want {
			t.Errorf("verifying for %s: %v, want success %t", host, err, want)
		}
	}
	if left := time.Until(c.Leaf.NotAfter); left > authority.Lifetime || left < authority.Lifetime-time.Minute {
		t.Errorf("lifetime is %s", left)
	}
}

func TestRootIsOfNoUseElsewhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, authority.Options{Dir: dir, Name: "weft", Domain: "localhost"})
	if _, err := a.Issue("example.com"); err == nil || !strings.Contains(err.Error(), "example.com is not in the domain localhost") {
		t.Errorf("issuing for example.com: error %v", err)
	}
	// Somebody who has stolen the key asks nobody for permission.
	keyPEM, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(keyPEM)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, template := range map[string]*x509.Certificate{
		"example.com": {DNSNames: []string{"example.com"}}, "127.0.0.1": {IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"notlocalhost": {DNSNames: []string{"notlocalhost"}},
	} {
		template.SerialNumber = big.NewInt(1)
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, a.Root(), leafKey.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: trusted(t, dir)}); err == nil {
			t.Errorf("a forged certificate for %s is believed", name)
		}
	}
}

func TestRootIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := authority.Options{Dir: dir, Name: "weft", Domain: "localhost"}
	first := open(t, o)
	again := open(t, o)
	if !first.Root().Equal(again.Root()) {
		t.Error("the second Open made another root")
	}
	c, err := again.Issue("shop.localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Leaf.CheckSignatureFrom(first.Root()); err != nil {
		t.Errorf("the first root did not sign what was issued after reopening: %v", err)
	}
	for file, want := range map[string]os.FileMode{"ca.key": 0o600, "ca.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", file, info.Mode().Perm(), want)
		}
	}
}

func TestRootIsReplacedWhenItCannotServe(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, domain, want string
		later              time.Duration
	}{
		{name: "other domain", domain: "apps.example.com", want: "it was for the domain localhost, not apps.example.com"},
		{name: "about to expire", domain: "localhost", later: 10*365*24*time.Hour - authority.Lifetime/2, want: "it expires on "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := authority.Options{Dir: t.TempDir(), Name: "weft", Domain: "localhost"}
			old := open(t, o)
			o.Domain, o.Now = tc.domain, func() time.Time { return time.Now().Add(tc.later) }
			a := open(t, o)
			if a.Root().Equal(old.Root()) || !strings.HasPrefix(a.Replaced(), tc.want) {
				t.Errorf("Replaced() = %q, want %q", a.Replaced(), tc.want)
			}
			if !a.Permits("*.default." + tc.domain) {
				t.Errorf("the new root does not permit %s", tc.domain)
			}
		})
	}
}

func TestDamageIsNotOverwritten(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{"ca.key": "ca.crt has no ca.key beside it", "ca.crt": ""} {
		dir := t.TempDir()
		o := authority.Options{Dir: dir, Name: "weft", Domain: "localhost"}
		open(t, o)
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		_, err := authority.Open(o)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("without %s: error %v, want %q", file, err, want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("mine too"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Open(authority.Options{Dir: dir, Name: "weft", Domain: "localhost"}); err == nil {
		t.Error("files that are no authority were taken for one")
	}
}
