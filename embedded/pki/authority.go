package pki

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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// authority is a certificate authority whose key is at hand.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ensureAuthority reads an authority or makes it. One that is about to expire is made anew, and with it all that it signed.
func ensureAuthority(pair Pair, name string, now time.Time) (*authority, error) {
	cert, key, err := read(pair)
	switch {
	case err == nil && now.Before(cert.NotAfter.Add(-leafLife)):
		return &authority{cert: cert, key: key}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		// A broken authority is not replaced silently: kubeconfigs elsewhere trust it.
		return nil, fmt.Errorf("reading certificate authority %q: %w", pair.Cert, err)
	}
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making key of certificate authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	cert, err = write(pair, template, template, fresh, fresh)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: fresh}, nil
}

// ensure keeps one leaf valid.
func (a *authority) ensure(l leaf, now time.Time) error {
	if cert, _, err := read(l.pair); err == nil && a.current(cert, l, now) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making key %q: %w", l.pair.Key, err)
	}
	template := &x509.Certificate{
		Subject:   l.subject,
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{l.usage},
		IPAddresses: l.ips, DNSNames: l.names, BasicConstraintsValid: true,
	}
	_, err = write(l.pair, template, a.cert, key, a.key)
	return err
}

// current reports whether cert is what ensure would make now.
func (a *authority) current(cert *x509.Certificate, l leaf, now time.Time) bool {
	return now.After(cert.NotBefore) && now.Before(cert.NotAfter.Add(-renewBefore)) &&
		cert.CheckSignatureFrom(a.cert) == nil &&
		cert.Subject.CommonName == l.subject.CommonName &&
		slices.Equal(cert.Subject.Organization, l.subject.Organization) &&
		slices.EqualFunc(cert.IPAddresses, l.ips, net.IP.Equal) &&
		slices.Equal(cert.DNSNames, l.names)
}

func read(pair Pair) (*x509.Certificate, crypto.Signer, error) {
	loaded, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("reading certificate: %w", err)
	}
	key, ok := loaded.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("reading certificate %q: key of type %T cannot sign", pair.Cert, loaded.PrivateKey)
	}
	return loaded.Leaf, key, nil
}

// write signs template and puts certificate and key in place. The key goes first: a reader that meets the new key with the old
// certificate fails to load the pair and keeps what it has.
func write(pair Pair, template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("drawing serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing certificate %q: %w", pair.Cert, err)
	}
	if err := writeKey(pair.Key, key); err != nil {
		return nil, err
	}
	if err := replace(pair.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing certificate just made: %w", err)
	}
	return cert, nil
}

// ensureKey makes a bare signing key if there is none. It is never renewed: tokens in use would become invalid.
func ensureKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making key %q: %w", path, err)
	}
	return writeKey(path, key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding key %q: %w", path, err)
	}
	return replace(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// replace writes a file so that a reader sees the old or the new one, never a part.
func replace(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // Gone already when all went well.
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}
