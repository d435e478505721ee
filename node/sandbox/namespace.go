package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podInterface is the name of the interface inside a pod.
const podInterface = "eth0"

// namespaces are the kinds of namespace that a sandbox has.
var namespaces = [...]struct {
	file string
	flag int
}{{netFile, unix.CLONE_NEWNET}, {ipcFile, unix.CLONE_NEWIPC}, {utsFile, unix.CLONE_NEWUTS}}

// connect makes the namespaces of e, binds them in its directory, and connects them to the bridge.
func (n *network) connect(e *entry) error {
	if err := onThread(func() error { return n.inNewNamespaces(e) }); err != nil {
		return err
	}
	port := n.portName(e.address)
	if err := disableIPv6(port); err != nil {
		return err
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}}
	// A pod reaches itself through its Service: the frame leaves by the port on which it came.
	if err := n.links.LinkSetHairpin(link, true); err != nil {
		return fmt.Errorf("setting hairpin mode of %q: %w", port, err)
	}
	if err := n.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("starting interface %q: %w", port, err)
	}
	return nil
}

// onThread runs fn on a locked thread that is not the process's main one, whose namespaces are what /proc/<pid>/ns shows to
// everybody else. The thread is used again only if fn unlocks it; else it ends.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}

// inNewNamespaces leaves the calling thread's namespaces for new ones, sets these up and returns to where the thread was, which
// costs less than ending it.
func (n *network) inNewNamespaces(e *entry) (err error) {
	var origin [len(namespaces)]int
	for i, ns := range namespaces {
		fd, err := unix.Open("/proc/thread-self/ns/"+ns.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening namespace of the thread: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		origin[i] = fd
	}
	flags := 0
	for _, ns := range namespaces {
		flags |= ns.flag
	}
	if err := unix.Unshare(flags); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("making namespaces: %w", err)
	}
	err = n.setUp(e)
	for i, ns := range namespaces {
		if err := unix.Setns(origin[i], ns.flag); err != nil {
			// The thread stays locked and ends with this goroutine, so that nothing else runs in the wrong namespaces.
			return fmt.Errorf("returning to namespace %q: %w", ns.file, err)
		}
	}
	runtime.UnlockOSThread()
	return err
}

// setUp runs on a thread that is in the new namespaces.
func (n *network) setUp(e *entry) error {
	for _, ns := range namespaces {
		if err := bind("/proc/thread-self/ns/"+ns.file, filepath.Join(e.dir, ns.file)); err != nil {
			return err
		}
	}
	if err := setPodSysctls(); err != nil {
		return err
	}
	netns, err := os.Open(filepath.Join(e.dir, netFile))
	if err != nil {
		return fmt.Errorf("opening network namespace: %w", err)
	}
	defer func() { _ = netns.Close() }()
	if err := n.addPort(e.address, netns); err != nil {
		return err
	}
	inside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink in the sandbox: %w", err)
	}
	defer inside.Close()
	return n.configure(inside, e.address)
}

// bind makes a namespace outlive its processes.
func bind(namespace, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("making a file to bind a namespace to: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing %q: %w", file, err)
	}
	if err := unix.Mount(namespace, file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding namespace to %q: %w", file, err)
	}
	return nil
}

// setPodSysctls lets a process without capabilities listen on port 80 and ping, as container engines do.
func setPodSysctls() error {
	// The default is for eth0, which does not exist yet; lo keeps its ::1.
	return errors.Join(
		writeSysctl("net/ipv4/ip_unprivileged_port_start", "0"),
		writeSysctl("net/ipv4/ping_group_range", "0 2147483647"),
		disableIPv6("default"),
	)
}

// addPort makes the pair of interfaces in one message, each end in its namespace and under its final name.
func (n *network) addPort(addr netip.Addr, netns *os.File) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = n.portName(addr), n.mtu, n.bridge.Index
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: podInterface, PeerHardwareAddr: hardwareAddr(addr),
		PeerMTU: uint32(n.mtu), PeerTxQLen: -1, PeerNamespace: netlink.NsFd(netns.Fd()),
	}
	if err := n.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("making interface %q: %w", attrs.Name, err)
	}
	return nil
}

// configure brings up lo and eth0 with its address and the default route.
func (n *network) configure(inside *netlink.Handle, addr netip.Addr) error {
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return fmt.Errorf("starting lo: %w", err)
	}
	eth, err := inside.LinkByName(podInterface)
	if err != nil {
		return fmt.Errorf("finding %s: %w", podInterface, err)
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, n.prefix.Bits()))}); err != nil {
		return fmt.Errorf("setting address of %s: %w", podInterface, err)
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return fmt.Errorf("starting %s: %w", podInterface, err)
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: n.gateway.AsSlice()}
	if err := inside.RouteAdd(route); err != nil {
		return fmt.Errorf("setting default route: %w", err)
	}
	return nil
}
