package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// InstallOptions say what to capture for whom.
type InstallOptions struct {
	// Instance names the table, the networks and the bridge.
	Instance instance.Instance
	// TCPPort is the port of Options.Listen at the instance's gateway address.
	TCPPort uint16
	// DrainPort is that of Options, 8022 when zero.
	DrainPort uint16
}

// tableSuffix distinguishes the rules of this package from those of the pods' network.
const tableSuffix = "-mesh"

// Install makes the kernel deliver what pods and host processes send to the service network to the proxy, and what host processes
// send to the drain port of pods. It replaces what an earlier call installed in one transaction, so that it may be called while
// traffic flows. It needs CAP_NET_ADMIN.
func Install(opts InstallOptions) error {
	if err := opts.Instance.Validate(); err != nil {
		return fmt.Errorf("installing capture: %w", err)
	}
	if opts.TCPPort == 0 {
		return errors.New("installing capture: TCP port is zero")
	}
	fill(&opts.DrainPort, DefaultDrainPort)
	if err := addRoute(opts.Instance.ServiceCIDR); err != nil {
		return fmt.Errorf("installing capture: %w", err)
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("installing capture: opening nftables: %w", err)
	}
	table := meshTable(opts.Instance)
	// Adding before deleting makes the deletion valid when there is no table yet. All of it is one transaction.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	addRules(conn, table, opts)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("installing capture: writing table %s: %w", table.Name, err)
	}
	return nil
}

// Remove undoes Install completely. What is not there is no error.
func Remove(i instance.Instance) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("removing capture: opening nftables: %w", err)
	}
	conn.DelTable(meshTable(i))
	if err := conn.Flush(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing capture: deleting table %s: %w", meshTable(i).Name, err)
	}
	if err := deleteRoute(i.ServiceCIDR); err != nil {
		return fmt.Errorf("removing capture: %w", err)
	}
	return nil
}

func meshTable(i instance.Instance) *nftables.Table {
	return &nftables.Table{Name: i.NFTTable() + tableSuffix, Family: nftables.TableFamilyIPv4}
}

// serviceRoute makes the service network local to this machine. Host processes that dial a cluster IP get a loopback source address by it,
// even on a machine without a default route.
func serviceRoute(services netip.Prefix) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("finding loopback interface: %w", err)
	}
	prefix := services.Masked()
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())},
		Src:       net.IPv4(127, 0, 0, 1),
		Scope:     netlink.SCOPE_HOST,
		Table:     unix.RT_TABLE_LOCAL,
		Type:      unix.RTN_LOCAL,
		Protocol:  unix.RTPROT_STATIC,
	}, nil
}

func addRoute(services netip.Prefix) error {
	route, err := serviceRoute(services)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("adding local route %s: %w", services, err)
	}
	return nil
}

func deleteRoute(services netip.Prefix) error {
	route, err := serviceRoute(services)
	if err != nil {
		return err
	}
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("deleting local route %s: %w", services, err)
	}
	return nil
}
