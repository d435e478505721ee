package certificate

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-dev/weft/mesh/config"
)

// Table finds the certificate for a handshake. Make it with NewTable. All methods may be called concurrently; handshakes take no lock.
type Table struct {
	// names is immutable: Apply replaces it.
	names atomic.Pointer[map[string]*tls.Certificate]
	// unknown counts handshakes for names that no certificate is for.
	unknown atomic.Uint64

	// mu guards the rest.
	mu     sync.Mutex
	byName map[string]*presented
}

// presented is one resource and what was made of it.
type presented struct {
	dnsNames    []string
	certificate *tls.Certificate
}

// NewTable returns a table without certificates.
func NewTable() *Table {
	t := &Table{byName: make(map[string]*presented)}
	t.names.Store(&map[string]*tls.Certificate{})
	return t
}

// Apply takes a change into use for the handshakes that come after; connections keep what they have. An error means that nothing of it
// was taken.
func (t *Table) Apply(upserts []*config.Certificate, removed []string) error {
	parsed := make(map[string]*presented, len(upserts))
	for _, r := range upserts {
		for _, name := range r.GetDnsNames() {
			if err := validName(name); err != nil {
				return fmt.Errorf("certificate %q: %w", r.GetName(), err)
			}
		}
		c, err := Parse(r)
		if err != nil {
			return fmt.Errorf("certificate %q: %w", r.GetName(), err)
		}
		parsed[r.GetName()] = &presented{dnsNames: r.GetDnsNames(), certificate: c}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(t.byName, parsed)
	for _, name := range removed {
		delete(t.byName, name)
	}
	names := make(map[string]*tls.Certificate)
	// The first resource by name has a DNS name that several want, so it is entered last.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(t.byName))) {
		for _, dnsName := range t.byName[name].dnsNames {
			names[dnsName] = t.byName[name].certificate
		}
	}
	t.names.Store(&names)
	return nil
}

// validName refuses what Certificate would never find.
func validName(name string) error {
	if host := strings.TrimPrefix(name, "*."); host == "" || host != plain(host) || strings.Contains(host, "*") {
		return fmt.Errorf("DNS name %q must be in lower case, without a final dot, with at most a leading \"*.\"", name)
	}
	return nil
}

// Certificate is for tls.Config.GetCertificate. An exact name goes before a wildcard, and a wildcard stands for one label, as it does to
// clients. For a client that asks for no name or for one that there is no certificate for, it returns nil, which makes crypto/tls
// send the alert unrecognized_name (RFC 6066 section 3): any other certificate would be an error that only looks like a forgery.
func (t *Table) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := t.find(plain(hello.ServerName)); c != nil {
		return c, nil
	}
	t.unknown.Add(1)
	return nil, nil //nolint:nilnil // it is what the caller documents
}

func (t *Table) find(name string) *tls.Certificate {
	names := *t.names.Load()
	if c := names[name]; c != nil {
		return c
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return names["*."+parent]
	}
	return nil
}

// plain is a name as the table has it.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// expiries are the ends of all certificates by the name of the resource.
func (t *Table) expiries() map[string]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	ends := make(map[string]time.Time, len(t.byName))
	for name, p := range t.byName {
		ends[name] = p.certificate.Leaf.NotAfter
	}
	return ends
}
