package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mark is the firewall mark of the proxy's own connections. The rules leave them alone, so that nothing that the proxy dials can come
// back to it as captured.
const Mark = 0x57454654

// Control sets Mark on a socket before it connects; it is for the Control field of a net.Dialer. Without the right to set marks the
// socket stays as it is: then there are no rules of ours that it could meet either.
func Control(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, Mark)
	})
}

// errNotCaptured is the answer for connections that were made to the listener itself.
var errNotCaptured = errors.New("connection was not redirected")

// originalDestination asks the kernel's connection tracking for the address that the client dialled.
func originalDestination(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading original destination: %w", err)
	}
	var destination netip.AddrPort
	var failed error
	if err := raw.Control(func(fd uintptr) {
		// The answer is a sockaddr_in. This is the one wrapped call that returns as many bytes for an IPv4 option.
		var answer *unix.IPv6Mreq
		if answer, failed = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); failed == nil {
			b := answer.Multiaddr
			destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
		}
	}); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading original destination: %w", err)
	}
	if failed != nil {
		return netip.AddrPort{}, fmt.Errorf("reading original destination: %w", failed)
	}
	if destination == addrPort(conn.LocalAddr()) {
		return netip.AddrPort{}, errNotCaptured
	}
	return destination, nil
}

// controlService prepares the socket of a cluster IP, which may be opened before Install has made the address local.
func controlService(_, _ string, raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	}); err != nil {
		return err
	}
	return failed
}
