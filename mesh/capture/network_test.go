package capture_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/weft-dev/weft/internal/instance"
)

// machine is a bridge with pods, under an instance of its own.
type machine struct {
	instance.Instance
	pods atomic.Uint32
}

// machines numbers the machines of this process, which share a network namespace.
var machines atomic.Uint32

func newMachine(t *testing.T) *machine {
	t.Helper()
	n := byte(machines.Add(1))
	m := &machine{Instance: instance.Default()}
	m.Name = fmt.Sprintf("m%d-", n)
	m.PodCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 207, n, 0}), 24)
	m.ServiceCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 208, n, 0}), 24)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: m.Bridge()}}
	must(t, netlink.LinkAdd(bridge))
	t.Cleanup(func() { _ = netlink.LinkDel(bridge) })
	must(t, netlink.AddrAdd(bridge, address(m.Gateway(), 24)))
	must(t, netlink.LinkSetUp(bridge))
	return m
}

func (m *machine) service(host byte) netip.Addr {
	a := m.ServiceCIDR.Addr().As4()
	a[3] = host
	return netip.AddrFrom4(a)
}

func address(a netip.Addr, bits int) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}}
}

// pod is a network namespace on the bridge. Calls run on a thread of its own that has joined it.
type pod struct {
	addr  netip.Addr
	calls chan func()
}

// pod makes a pod on the bridge.
func (m *machine) pod(t *testing.T) *pod {
	t.Helper()
	n := m.pods.Add(1) + 1
	a := m.PodCIDR.Addr().As4()
	a[3] = byte(n)
	p := &pod{addr: netip.AddrFrom4(a), calls: make(chan func())}
	ready := make(chan netns.NsHandle)
	failed := make(chan error, 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		// The thread is not unlocked: the runtime ends it with the goroutine, and the namespace with it.
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		defer func() { _ = ns.Close() }()
		ready <- ns
		for call := range p.calls {
			call()
		}
	}()
	var ns netns.NsHandle
	select {
	case ns = <-ready:
	case err := <-failed:
		t.Fatal(err)
	}
	t.Cleanup(func() { close(p.calls); <-stopped })

	host, inside := fmt.Sprintf("%sv%d", m.Name, n), fmt.Sprintf("%sp%d", m.Name, n)
	bridge, err := netlink.LinkByName(m.Bridge())
	must(t, err)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host, MasterIndex: bridge.Attrs().Index}, PeerName: inside}
	must(t, netlink.LinkAdd(veth))
	must(t, netlink.LinkSetUp(veth))
	peer, err := netlink.LinkByName(inside)
	must(t, err)
	must(t, netlink.LinkSetNsFd(peer, int(ns)))
	p.do(func() {
		err = errors.Join(up("lo", nil), up(inside, address(p.addr, 24)))
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{Gw: m.Gateway().AsSlice()})
		}
	})
	must(t, err)
	return p
}

func up(name string, addr *netlink.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if addr != nil {
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// do runs f in the pod.
func (p *pod) do(f func()) {
	done := make(chan struct{})
	p.calls <- func() { defer close(done); f() }
	<-done
}

func (p *pod) dial(t *testing.T, network string, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	var conn net.Conn
	var err error
	p.do(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err = (&net.Dialer{}).DialContext(ctx, network, to.String())
	})
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	}
	return conn, err
}

// echoTCP listens in the pod and greets each client with the client's address before it echoes.
func (p *pod) echoTCP(t *testing.T) netip.AddrPort {
	t.Helper()
	var l net.Listener
	var err error
	p.do(func() { l, err = net.Listen("tcp4", netip.AddrPortFrom(p.addr, 0).String()) })
	must(t, err)
	return serveEcho(t, l)
}

// echoUDP answers each datagram with its content after the prefix.
func (p *pod) echoUDP(t *testing.T, prefix string) netip.AddrPort {
	t.Helper()
	var conn net.PacketConn
	var err error
	p.do(func() { conn, err = net.ListenPacket("udp4", netip.AddrPortFrom(p.addr, 0).String()) })
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(append([]byte(prefix), buf[:n]...), from)
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	addr, err := netip.ParseAddrPort(conn.LocalAddr().String())
	must(t, err)
	return addr
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
