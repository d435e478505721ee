package certificate

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/weft-dev/weft/mesh/config"
)

// What can be wrong with a chain and a key. The errors of Parse and ParsePEM wrap one of them.
var (
	// ErrMalformed is for data that is not what it should be.
	ErrMalformed = errors.New("malformed certificate")
	// ErrMismatch is for a key that is not that of the leaf.
	ErrMismatch = errors.New("the private key does not belong to the certificate")
)

// Parse makes what a TLS server presents of a resource. The result's Leaf is set.
func Parse(c *config.Certificate) (*tls.Certificate, error) {
	key, err := x509.ParsePKCS8PrivateKey(c.GetKey())
	if err != nil {
		// The error of the parser says what it found in the key.
		return nil, fmt.Errorf("%w: the private key is not PKCS #8", ErrMalformed)
	}
	return pair(c.GetChain(), key)
}

// ParsePEM makes the same of the files that a Secret of type kubernetes.io/tls holds: certificates with the leaf first, and a key as
// PKCS #8, PKCS #1 or SEC 1.
func ParsePEM(chain, key []byte) (*tls.Certificate, error) {
	ders, err := chainOf(chain)
	if err != nil {
		return nil, err
	}
	signer, err := keyOf(key)
	if err != nil {
		return nil, err
	}
	return pair(ders, signer)
}

// pair checks that the key is that of the leaf.
func pair(chain [][]byte, key any) (*tls.Certificate, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("%w: the chain is empty", ErrMalformed)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: the private key cannot sign", ErrMalformed)
	}
	var leaf *x509.Certificate
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d of the chain: %w", ErrMalformed, i+1, err)
		}
		if i == 0 {
			leaf = c
		}
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, fmt.Errorf("%w: keys of type %s cannot be used", ErrMalformed, leaf.PublicKeyAlgorithm)
	}
	if !public.Equal(signer.Public()) {
		return nil, ErrMismatch
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: signer, Leaf: leaf}, nil
}

// chainOf reads the certificates of a PEM file; other blocks are passed over, as TLS servers do.
func chainOf(data []byte) ([][]byte, error) {
	var chain [][]byte
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%w: there is no PEM block of type CERTIFICATE", ErrMalformed)
	}
	return chain, nil
}

// keyOf reads the first private key of a PEM file. Errors do not tell what is in it.
func keyOf(data []byte) (any, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, fmt.Errorf("%w: there is no PEM block with a private key", ErrMalformed)
		}
		for _, parse := range []func([]byte) (any, error){
			x509.ParsePKCS8PrivateKey,
			func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
			func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		} {
			if key, err := parse(block.Bytes); err == nil {
				return key, nil
			}
		}
	}
}

// Resource is the certificate as it is sent to proxies, presented for these names.
func Resource(name string, dnsNames []string, c *tls.Certificate) (*config.Certificate, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key of %q: %w", name, err)
	}
	return &config.Certificate{Name: name, DnsNames: dnsNames, Chain: c.Certificate, Key: key}, nil
}
