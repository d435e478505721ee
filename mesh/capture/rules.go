package capture

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offsets in an IPv4 header and in the header of TCP and UDP.
const (
	destinationAddress = 16
	destinationPort    = 2
)

// addRules writes the chains of the table.
func addRules(conn *nftables.Conn, table *nftables.Table, opts InstallOptions) {
	i := opts.Instance
	listener := netip.AddrPortFrom(i.Gateway(), opts.TCPPort)
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority})
	}
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		r := &nftables.Rule{Table: table, Chain: chain}
		for _, part := range parts {
			r.Exprs = append(r.Exprs, part...)
		}
		conn.AddRule(r)
	}

	pods := chain("pods", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	rule(pods, fromInterface(i.Bridge()), to(i.ServiceCIDR), protocol(unix.IPPROTO_TCP), redirect(listener))

	host := chain("host", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	rule(host, notMarked(), to(i.ServiceCIDR), protocol(unix.IPPROTO_TCP), redirect(listener))
	rule(host, notMarked(), to(i.PodCIDR), protocol(unix.IPPROTO_TCP), toPort(opts.DrainPort), redirect(listener))

	// The service network is local to this machine. What reaches it and belongs to no Service must not end at a process that listens
	// on every address: TCP that was not redirected (the proxy's own), and UDP without a socket of the very cluster IP.
	stray := chain("stray", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule(stray, to(i.ServiceCIDR), protocol(unix.IPPROTO_TCP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	rule(stray, to(i.ServiceCIDR), protocol(unix.IPPROTO_UDP), wildcardSocket(),
		[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable}})
}

// portUnreachable is the code of ICMP that tells a UDP client that nothing listens.
const portUnreachable = 3

func fromInterface(name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

func to(network netip.Prefix) []expr.Any {
	network = network.Masked()
	addr := network.Addr().As4()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: destinationAddress, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(network.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr[:]},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func notMarked() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(Mark)},
	}
}

// wildcardSocket matches datagrams that would go to a socket which is bound to no address.
func wildcardSocket() []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
	}
}

// redirect changes the destination. The listener has an address of its own per instance, so that instances do not need different ports.
func redirect(listener netip.AddrPort) []expr.Any {
	addr := listener.Addr().As4()
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: addr[:]},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(listener.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}
}
