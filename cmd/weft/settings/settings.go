// Package settings holds what a user chooses about a platform on this machine, and keeps it in the state directory, so that every
// command after `weft up` needs to know only that directory. It also takes the locks that make a platform unique.
// The commands of cmd/weft use it; it imports no Kubernetes.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/weft-dev/weft/internal/instance"
)

// Default ports.
const (
	DefaultHTTPPort    = 8080
	DefaultAPIPort     = 6443
	DefaultMetricsPort = 9090
)

// httpsDistance lies between the port of plain HTTP and that of HTTPS where neither is a standard one: 8080 and 8443.
const httpsDistance = 363

// maxStateDir keeps the paths of unix sockets below the kernel's limit of 107 bytes.
const maxStateDir = 80

// ErrNone is returned by Load for a state directory in which `weft up` never ran.
var ErrNone = errors.New("no platform here")

// Settings are all choices. They are part of the user's interface: the file instance.json contains them as JSON.
type Settings struct {
	instance.Instance
	// HTTPPort is the gateway's.
	HTTPPort int `json:"httpPort"`
	// HTTPSPort is the gateway's for TLS; zero lets it follow HTTPPort, see SecurePort.
	HTTPSPort int `json:"httpsPort,omitzero"`
	// MinTLSVersion is the oldest version of TLS that the gateway speaks, "1.2" or "1.3"; empty means "1.2".
	MinTLSVersion string `json:"minTLSVersion,omitzero"`
	// APIPort is the Kubernetes API's, on loopback.
	APIPort int `json:"apiPort"`
	// MetricsPort is the proxy's, on loopback.
	MetricsPort int `json:"metricsPort"`
	// ProxyAddress is where the gateway listens. When not valid, the domain decides, see GatewayAddresses.
	ProxyAddress netip.Addr `json:"proxyAddress,omitzero"`
	// HostDNS is where the DNS server of the pods also listens, for the machine itself. When not valid, only on the bridge.
	HostDNS netip.AddrPort `json:"hostDNS,omitzero"`
}

// Default is `weft up` without flags.
func Default() Settings {
	return Settings{
		Instance: instance.Default(),
		HTTPPort: DefaultHTTPPort, APIPort: DefaultAPIPort, MetricsPort: DefaultMetricsPort,
	}
}

// SecurePort is the gateway's port for HTTPS: the one that was chosen, or 443 beside 80, or the one that lies as far above the port of
// plain HTTP as 8443 above 8080. So a second platform that moves the one moves the other too.
func (s Settings) SecurePort() int {
	switch {
	case s.HTTPSPort != 0:
		return s.HTTPSPort
	case s.HTTPPort == 80:
		return 443
	default:
		return s.HTTPPort + httpsDistance
	}
}

// ServiceURL is the form of the services' URLs with a scheme, http or https.
func (s Settings) ServiceURL(scheme string) string {
	port, standard := s.HTTPPort, 80
	if scheme == "https" {
		port, standard = s.SecurePort(), 443
	}
	host := "NAME.NAMESPACE." + s.Domain
	if port != standard {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	}
	return scheme + "://" + host
}

// AuthorityDir is where the platform's certificate authority is.
func (s Settings) AuthorityDir() string { return s.Path("tls") }

// GatewayAddresses are the addresses on which the gateway listens. Names below the domain localhost resolve to loopback on every
// machine, so by default nobody else needs, or gets, access.
func (s Settings) GatewayAddresses() []netip.Addr {
	switch {
	case s.ProxyAddress.IsValid():
		return []netip.Addr{s.ProxyAddress}
	case s.Domain != instance.DefaultDomain:
		return []netip.Addr{netip.IPv4Unspecified()}
	case ipv6Loopback():
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	default:
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
}

// ipv6Loopback reports whether this machine has ::1.
func ipv6Loopback() bool {
	l, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback})
	return err == nil && l.Close() == nil
}

// Port is a port that the platform listens on, and where.
type Port struct {
	// Flag sets it.
	Flag    string
	Number  int
	Address netip.Addr
	// Proxy says that weft-proxy listens there, not weft.
	Proxy bool
}

// String is the port as host:port.
func (p Port) String() string { return net.JoinHostPort(p.Address.String(), strconv.Itoa(p.Number)) }

// Ports lists the ports on the machine's own addresses.
func (s Settings) Ports() []Port {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	ports := []Port{
		{Flag: "--api-port", Number: s.APIPort, Address: loopback},
		{Flag: "--metrics-port", Number: s.MetricsPort, Address: loopback, Proxy: true},
	}
	if s.HostDNS.IsValid() {
		ports = append(ports, Port{Flag: "--host-dns", Number: int(s.HostDNS.Port()), Address: s.HostDNS.Addr(), Proxy: true})
	}
	for _, address := range s.GatewayAddresses() {
		ports = append(ports,
			Port{Flag: "--http-port", Number: s.HTTPPort, Address: address, Proxy: true},
			Port{Flag: "--https-port", Number: s.SecurePort(), Address: address, Proxy: true})
	}
	return ports
}

// Validate reports the first setting that cannot work.
func (s Settings) Validate() error {
	if err := s.Instance.Validate(); err != nil {
		return err
	}
	if len(s.StateDir) > maxStateDir {
		return fmt.Errorf("%w: state directory %q is longer than %d characters, and the paths of sockets in it would be too long",
			instance.ErrInvalid, s.StateDir, maxStateDir)
	}
	seen := map[int]string{}
	for _, p := range []struct {
		flag   string
		number int
	}{{"--http-port", s.HTTPPort}, {"--https-port", s.SecurePort()}, {"--api-port", s.APIPort}, {"--metrics-port", s.MetricsPort}} {
		if p.number < 1 || p.number > 65535 {
			return fmt.Errorf("%w: %s %d is not between 1 and 65535", instance.ErrInvalid, p.flag, p.number)
		}
		if other, taken := seen[p.number]; taken {
			return fmt.Errorf("%w: %s and %s are both %d", instance.ErrInvalid, other, p.flag, p.number)
		}
		seen[p.number] = p.flag
	}
	if v := s.MinTLSVersion; v != "" && v != "1.2" && v != "1.3" {
		return fmt.Errorf("%w: --tls-min-version %q is neither 1.2 nor 1.3", instance.ErrInvalid, v)
	}
	return nil
}

// Load reads the settings of the platform in a state directory. The error is ErrNone when there is none.
func Load(stateDir string) (Settings, error) {
	data, err := os.ReadFile(path(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("%w: %q holds no instance.json, start a platform with `weft up`", ErrNone, stateDir)
	}
	if err != nil {
		return Settings{}, fmt.Errorf("reading settings: %w", err)
	}
	s := Default()
	if err := json.Unmarshal(data, &s); err != nil {
		return Settings{}, fmt.Errorf("reading settings %q: %w", path(stateDir), err)
	}
	// The directory may have been moved.
	s.StateDir = stateDir
	return s, nil
}

// Save writes the settings into their state directory.
func (s Settings) Save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding settings: %w", err)
	}
	temp := path(s.StateDir) + ".new"
	if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	if err := os.Rename(temp, path(s.StateDir)); err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	return nil
}

// CheckChange reports a setting that cannot differ from that of an earlier run in the same directory.
func (s Settings) CheckChange(earlier Settings) error {
	for _, f := range []struct {
		flag, was, is string
	}{
		{"--name", earlier.Name, s.Name},
		{"--pod-cidr", earlier.PodCIDR.String(), s.PodCIDR.String()},
		{"--service-cidr", earlier.ServiceCIDR.String(), s.ServiceCIDR.String()},
	} {
		if f.was != f.is {
			return fmt.Errorf("%s cannot change from %s to %s: objects in %s depend on it, use another --state-dir or `weft down --purge` first",
				f.flag, f.was, f.is, s.StateDir)
		}
	}
	return nil
}

func path(stateDir string) string { return instance.Instance{StateDir: stateDir}.Path("instance.json") }
