package sandbox

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// defaultMTU is used when the machine has no default route whose interface could tell.
const defaultMTU = 1500

// network is the bridge and the interfaces on it. Its netlink handle stays in the network namespace in which it was made, so that
// its methods may be called from any thread.
type network struct {
	links   *netlink.Handle
	bridge  *netlink.Bridge
	prefix  netip.Prefix
	gateway netip.Addr
	// port begins the name of every interface on the bridge; six hexadecimal digits of the address follow.
	port string
	mtu  int
}

// newNetwork makes the bridge, or brings one that exists into shape, and turns IP forwarding on.
func newNetwork(i instance.Instance) (_ *network, err error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	n := &network{links: links, prefix: i.PodCIDR.Masked(), gateway: i.Gateway(), port: portPrefix(i)}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.mtu, err = uplinkMTU(links); err != nil {
		return nil, err
	}
	if err := n.ensureBridge(i.Bridge()); err != nil {
		return nil, err
	}
	if err := writeSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *network) close() { n.links.Close() }

func portPrefix(i instance.Instance) string { return i.Name + "v" }

// ensureBridge gives the bridge a fixed hardware address: without one it takes the lowest of its ports', and every pod's neighbour
// entry for the gateway would be wrong each time that a pod comes or goes.
func (n *network) ensureBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, n.mtu, hardwareAddr(n.gateway)
	n.bridge = &netlink.Bridge{LinkAttrs: attrs}
	err := n.links.LinkAdd(n.bridge)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("making bridge %q: %w", name, err)
	}
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding bridge %q: %w", name, err)
	}
	bridge, ok := link.(*netlink.Bridge)
	if !ok {
		return fmt.Errorf("interface %q is a %s and not a bridge", name, link.Type())
	}
	n.bridge = bridge
	if err := disableIPv6(name); err != nil {
		return err
	}
	if err := n.ensureGateway(); err != nil {
		return err
	}
	if err := n.links.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("starting bridge %q: %w", name, err)
	}
	return nil
}

// ensureGateway makes the gateway the only address of the bridge.
func (n *network) ensureGateway() error {
	want := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(n.gateway, n.prefix.Bits()))}
	have, err := n.links.AddrList(n.bridge, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing addresses of bridge %q: %w", n.bridge.Name, err)
	}
	for _, a := range have {
		if a.IPNet.String() == want.IPNet.String() {
			continue
		}
		if err := n.links.AddrDel(n.bridge, &a); err != nil {
			return fmt.Errorf("removing address %s of bridge %q: %w", a.IPNet, n.bridge.Name, err)
		}
	}
	if err := n.links.AddrReplace(n.bridge, want); err != nil {
		return fmt.Errorf("setting address %s of bridge %q: %w", want.IPNet, n.bridge.Name, err)
	}
	return nil
}

// ports lists the names of the interfaces on the bridge.
func (n *network) ports() ([]string, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Attrs().MasterIndex == n.bridge.Index {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// portName is the interface on the bridge of the pod with this address: its last three bytes, which are all that differ in a
// network of 8 bits or more.
func (n *network) portName(addr netip.Addr) string {
	b := addr.As4()
	return n.port + hex.EncodeToString(b[1:])
}

// addressOf is the inverse of portName.
func (n *network) addressOf(port string) (netip.Addr, bool) {
	b, err := hex.DecodeString(strings.TrimPrefix(port, n.port))
	if err != nil || len(b) != 3 {
		return netip.Addr{}, false
	}
	first := n.prefix.Addr().As4()[0]
	return netip.AddrFrom4([4]byte{first, b[0], b[1], b[2]}), true
}

func (n *network) hasPort(addr netip.Addr) bool {
	_, err := n.links.LinkByName(n.portName(addr))
	return err == nil
}

func (n *network) deletePort(addr netip.Addr) error { return n.deleteLink(n.portName(addr)) }

// deleteLink removes an interface. One that is gone is no error: it goes with its namespace.
func (n *network) deleteLink(name string) error {
	link, err := n.links.LinkByName(name)
	if err == nil {
		err = n.links.LinkDel(link)
	}
	if gone := new(netlink.LinkNotFoundError); errors.As(err, gone) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting interface %q: %w", name, err)
	}
	return nil
}

// uplinkMTU is the smallest MTU of the interfaces that lead outside. A pod with a larger one would have its packets dropped by
// networks that lose ICMP, as clouds' overlay networks do.
func uplinkMTU(links *netlink.Handle) (int, error) {
	routes, err := links.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return 0, fmt.Errorf("listing routes: %w", err)
	}
	mtus := []int{defaultMTU}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := links.LinkByIndex(r.LinkIndex); err == nil {
			mtus = append(mtus, link.Attrs().MTU)
		}
	}
	return slices.Min(mtus), nil
}

// hardwareAddr derives a locally administered address from an IP, so that a neighbour entry never outlives its truth.
func hardwareAddr(addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// disableIPv6 keeps an interface free of IPv6 addresses and of the multicast that comes with them. A kernel without IPv6 is fine.
func disableIPv6(link string) error {
	return ignoreMissing(writeSysctl("net/ipv6/conf/"+link+"/disable_ipv6", "1"))
}

// writeSysctl sets a kernel parameter, in the network namespace of the calling thread for those below net/.
func writeSysctl(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting kernel parameter: %w", err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
