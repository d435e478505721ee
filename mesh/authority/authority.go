// Package authority is the platform's own certificate authority: a root that is made once and kept in a directory, and that signs
// short-lived certificates for hosts of the platform's domain. cmd/weft opens it and shows the root to the user; mesh/provision asks it
// for certificates. It imports no Kubernetes and knows nothing of hosts beyond their names.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// rootLifetime is long, because people install the root by hand.
	rootLifetime = 10 * 365 * 24 * time.Hour
	// Lifetime of a certificate. Browsers take no more than 398 days, and a key that leaks should not be of use for long.
	Lifetime = 90 * 24 * time.Hour
	// backdate lets machines whose clock is behind believe in a new certificate.
	backdate = time.Hour

	rootFile, keyFile = "ca.crt", "ca.key"
)

// RootPath is where the root is in PEM, below the directory given to Open.
func RootPath(dir string) string { return filepath.Join(dir, rootFile) }

// Options of Open.
type Options struct {
	// Dir holds root and key; it is made with mode 0700 when missing.
	Dir string
	// Name tells the roots of several platforms apart to people.
	Name string
	// Domain is the only one, with all below it, for which the root is believed.
	Domain string
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Authority signs certificates. It may be used concurrently.
type Authority struct {
	root *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
	// replaced says why Open has made a new root in the place of another, or is empty.
	replaced string
}

// Open reads the authority in a directory. It makes one when there is none, and a new one when the old is for another domain or about to
// expire: then Replaced says so, because everybody who trusted the old root has to learn of the new one.
func Open(o Options) (*Authority, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a, err := load(o)
	if errors.Is(err, fs.ErrNotExist) {
		return create(o)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority in %q: %w", o.Dir, err)
	}
	reason := ""
	switch {
	case !a.Permits(o.Domain):
		reason = fmt.Sprintf("it was for the domain %s, not %s", strings.Join(a.root.PermittedDNSDomains, ", "), o.Domain)
	case a.root.NotAfter.Before(o.Now().Add(Lifetime)):
		reason = "it expires on " + a.root.NotAfter.Format(time.DateOnly)
	default:
		return a, nil
	}
	if a, err = create(o); err != nil {
		return nil, err
	}
	a.replaced = reason
	return a, nil
}

// Replaced says why Open has made a new root in the place of an old one. It is empty when it has not.
func (a *Authority) Replaced() string { return a.replaced }

// Root is the certificate to trust.
func (a *Authority) Root() *x509.Certificate { return a.root }

// Permits reports whether certificates for a host are believed. The host may begin with "*.".
func (a *Authority) Permits(host string) bool {
	for _, domain := range a.root.PermittedDNSDomains {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return true
		}
	}
	return false
}

// Issue makes a key and a certificate for DNS names, each of which may begin with "*.". The result's Leaf is set.
func (a *Authority) Issue(names ...string) (*tls.Certificate, error) {
	for _, name := range names {
		if !a.Permits(name) {
			return nil, fmt.Errorf("issuing a certificate: %s is not in the domain %s of the authority", name, strings.Join(a.root.PermittedDNSDomains, ", "))
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	now := a.now()
	template := &x509.Certificate{
		DNSNames:  names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(Lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", strings.Join(names, ", "), err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate just made: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func load(o Options) (*Authority, error) {
	root, err := os.ReadFile(RootPath(o.Dir))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(o.Dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s beside it; remove it to get a new authority", rootFile, keyFile)
	}
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(root, key)
	if err != nil {
		return nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not a certificate authority", rootFile)
	}
	return &Authority{root: pair.Leaf, key: signer, now: o.Now}, nil
}

func create(o Options) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the certificate authority: %w", err)
	}
	now := o.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Weft"}, CommonName: "Weft " + o.Name + " for " + o.Domain},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		// Whoever gets hold of the key of a root that people have installed can pretend to be a host of this platform and no other.
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{o.Domain},
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate authority: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority just made: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of the certificate authority: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of the certificate authority: %w", err)
	}
	// The old root goes first and the new one comes last: a root always has its key beside it, whatever happens in between.
	if err := os.Remove(RootPath(o.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old certificate authority: %w", err)
	}
	for _, f := range []struct {
		name, kind string
		der        []byte
		mode       fs.FileMode
	}{{keyFile, "PRIVATE KEY", private, 0o600}, {rootFile, "CERTIFICATE", der, 0o644}} {
		if err := write(filepath.Join(o.Dir, f.name), pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), f.mode); err != nil {
			return nil, fmt.Errorf("writing the certificate authority: %w", err)
		}
	}
	return &Authority{root: root, key: key, now: o.Now}, nil
}

// write replaces a file as a whole.
func write(path string, data []byte, mode fs.FileMode) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
