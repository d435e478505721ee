package sandbox

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// The chains of this package in the instance's table. Other parts of the node have chains of their own there.
const (
	forwardChain = "pods-forward"
	natChain     = "pods-nat"
)

// Offsets of the addresses in an IPv4 header.
const (
	sourceOffset      = 12
	destinationOffset = 16
)

// installRules writes the rules of the pods' network in one transaction, replacing those of an earlier process:
//
//	pods-forward: pods may open connections to anywhere under their own address; nothing from outside may open one to a pod.
//	pods-nat:     what leaves the pod network takes the address of the machine.
//
// Traffic between pods stays on the bridge and does not come here.
func installRules(i instance.Instance) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	table := conn.AddTable(table(i))
	forward := conn.AddChain(&nftables.Chain{
		Name: forwardChain, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	nat := conn.AddChain(&nftables.Chain{
		Name: natChain, Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.FlushChain(forward)
	conn.FlushChain(nat)
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		rule := &nftables.Rule{Table: table, Chain: chain}
		for _, p := range parts {
			rule.Exprs = append(rule.Exprs, p...)
		}
		conn.AddRule(rule)
	}
	bridge, pods := i.Bridge(), i.PodCIDR
	add(forward, iface(expr.MetaKeyIIFNAME, bridge), address(sourceOffset, pods, expr.CmpOpNeq), verdict(expr.VerdictDrop))
	add(forward, iface(expr.MetaKeyOIFNAME, bridge), established(), verdict(expr.VerdictAccept))
	add(forward, iface(expr.MetaKeyIIFNAME, bridge), verdict(expr.VerdictAccept))
	add(forward, iface(expr.MetaKeyOIFNAME, bridge), verdict(expr.VerdictDrop))
	add(nat, address(sourceOffset, pods, expr.CmpOpEq), address(destinationOffset, pods, expr.CmpOpNeq), []expr.Any{&expr.Masq{}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("writing nftables rules of table %q: %w", table.Name, err)
	}
	return nil
}

// removeRules deletes the instance's whole table, with the chains that other parts of the node put there.
func removeRules(i instance.Instance) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	conn.DelTable(table(i))
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("deleting nftables table %q: %w", i.NFTTable(), err)
	}
	return nil
}

func table(i instance.Instance) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: i.NFTTable()}
}

// iface matches the name of the interface that a packet came from or goes to.
func iface(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}}
}

// address matches an IPv4 address against a network. Packets of IPv6 never match.
func address(offset uint32, network netip.Prefix, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: ipNet(network).Mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: network.Masked().Addr().AsSlice()},
	}
}

// established matches packets of connections that were let through before.
func established() []expr.Any {
	states := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
