package sandbox

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/weft-dev/weft/internal/instance"
)

// ErrNoAddress is returned when every address of the pod network is in use.
var ErrNoAddress = errors.New("no free address in the pod network")

// addresses hands out the addresses of the pod network in a circle, so that an address that was given back is used again as late
// as possible: connections and caches of its former owner have then expired. The caller serialises all calls.
type addresses struct {
	prefix  netip.Prefix
	gateway netip.Addr
	last    netip.Addr
	used    map[netip.Addr]struct{}
}

func newAddresses(i instance.Instance) *addresses {
	return &addresses{prefix: i.PodCIDR.Masked(), gateway: i.Gateway(), last: i.Gateway(), used: map[netip.Addr]struct{}{}}
}

func (a *addresses) allocate() (netip.Addr, error) {
	addr := a.last
	for range 1 << (32 - a.prefix.Bits()) {
		addr = addr.Next()
		if !a.prefix.Contains(addr) {
			addr = a.prefix.Addr()
		}
		if addr == a.prefix.Addr() || addr == a.gateway || addr == broadcast(a.prefix) || a.reserved(addr) {
			continue
		}
		a.last = addr
		a.used[addr] = struct{}{}
		return addr, nil
	}
	return netip.Addr{}, ErrNoAddress
}

func (a *addresses) contains(addr netip.Addr) bool { return a.prefix.Contains(addr) }

func (a *addresses) reserve(addr netip.Addr) { a.used[addr] = struct{}{} }

func (a *addresses) release(addr netip.Addr) { delete(a.used, addr) }

func (a *addresses) reserved(addr netip.Addr) bool {
	_, ok := a.used[addr]
	return ok
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
