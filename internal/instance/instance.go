// Package instance names everything that one Weft platform on a machine owns: its directories, its sockets, its bridge, its
// nftables table and its cgroup. Two platforms on one machine (a developer's and a test's) differ in their Instance and in
// nothing else, and `weft down --purge` removes exactly what an Instance names. It is a leaf: it imports no other package of Weft.
package instance

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
)

// Defaults of an Instance.
const (
	DefaultName     = "weft"
	DefaultStateDir = "/var/lib/weft"
	DefaultDomain   = "localhost"
)

// Default networks, chosen from the part of 10.0.0.0/8 that other single-machine platforms leave alone.
var (
	DefaultPodCIDR     = netip.MustParsePrefix("10.207.0.0/16")
	DefaultServiceCIDR = netip.MustParsePrefix("10.208.0.0/16")
)

// ErrInvalid is wrapped by every error of Validate.
var ErrInvalid = errors.New("invalid instance")

// Instance is one platform on this machine. The zero value is not valid; Default is.
type Instance struct {
	// Name distinguishes platforms on one machine. At most 8 characters of [a-z0-9-], because interface names carry it.
	Name string `json:"name"`
	// StateDir is the absolute path of the directory that holds all state.
	StateDir string `json:"stateDir"`
	// PodCIDR is the network of the pods. Its first address is the bridge's: the pods' gateway, DNS server and way to the proxy.
	PodCIDR netip.Prefix `json:"podCIDR"`
	// ServiceCIDR is the network of cluster IPs. Its first address is that of the Service kubernetes.default.
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
	// Domain is the suffix of public hosts, "localhost" by default.
	Domain string `json:"domain"`
}

// Default returns the instance that `weft up` runs without flags.
func Default() Instance {
	return Instance{
		Name: DefaultName, StateDir: DefaultStateDir, PodCIDR: DefaultPodCIDR, ServiceCIDR: DefaultServiceCIDR, Domain: DefaultDomain,
	}
}

var nameFormat = regexp.MustCompile(`^[a-z][a-z0-9-]{0,7}$`)

// Validate reports the first field that cannot work, wrapped in ErrInvalid.
func (i Instance) Validate() error {
	switch {
	case !nameFormat.MatchString(i.Name):
		return fmt.Errorf("%w: name %q must be 1 to 8 characters of a-z, 0-9 and -, starting with a letter", ErrInvalid, i.Name)
	case !filepath.IsAbs(i.StateDir):
		return fmt.Errorf("%w: state directory %q must be an absolute path", ErrInvalid, i.StateDir)
	case !i.PodCIDR.Addr().Is4() || i.PodCIDR.Bits() < 8 || i.PodCIDR.Bits() > 24:
		return fmt.Errorf("%w: pod network %q must be an IPv4 prefix of 8 to 24 bits", ErrInvalid, i.PodCIDR)
	case !i.ServiceCIDR.Addr().Is4() || i.ServiceCIDR.Bits() < 12 || i.ServiceCIDR.Bits() > 24:
		return fmt.Errorf("%w: service network %q must be an IPv4 prefix of 12 to 24 bits", ErrInvalid, i.ServiceCIDR)
	case i.PodCIDR.Overlaps(i.ServiceCIDR):
		return fmt.Errorf("%w: pod network %s and service network %s overlap", ErrInvalid, i.PodCIDR, i.ServiceCIDR)
	case i.Domain == "":
		return fmt.Errorf("%w: domain is empty", ErrInvalid)
	}
	return nil
}

// Path joins elements to the state directory.
func (i Instance) Path(elem ...string) string {
	return filepath.Join(append([]string{i.StateDir}, elem...)...)
}

// Kubeconfig is the path of the administrator's kubeconfig, mode 0600.
func (i Instance) Kubeconfig() string { return i.Path("kubeconfig") }

// ControlSocket is the path of the unix socket on which the control plane serves delta ADS and the load reports to its proxy.
func (i Instance) ControlSocket() string { return i.Path("run", "control.sock") }

// ProxyAdminSocket is the path of the unix socket on which the proxy answers its supervisor (readiness, drain, configuration dump).
func (i Instance) ProxyAdminSocket() string { return i.Path("run", "proxy.sock") }

// Bridge is the name of the network bridge of the pods.
func (i Instance) Bridge() string { return i.Name + "0" }

// Gateway is the bridge's address: the first of PodCIDR.
func (i Instance) Gateway() netip.Addr { return i.PodCIDR.Masked().Addr().Next() }

// APIServiceIP is the cluster IP of the Service kubernetes.default: the first of ServiceCIDR.
func (i Instance) APIServiceIP() netip.Addr { return i.ServiceCIDR.Masked().Addr().Next() }

// NFTTable is the name of the inet nftables table that holds all rules of this instance.
func (i Instance) NFTTable() string { return i.Name }

// CgroupParent is the cgroup below which all containers of this instance run, relative to each hierarchy's root.
func (i Instance) CgroupParent() string { return "/" + i.Name }
