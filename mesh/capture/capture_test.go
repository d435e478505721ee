package capture_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/mesh/capture"
	"github.com/weft-dev/weft/mesh/config"
)

const tcpPort = 15001

func serveEcho(t *testing.T, l net.Listener) netip.AddrPort {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	addr, err := netip.ParseAddrPort(l.Addr().String())
	must(t, err)
	return addr
}

// recorder is a Handler that notes connections before it passes them on.
type recorder struct {
	*capture.Server
	seen chan capture.Connection
}

func (r *recorder) ServeTCP(ctx context.Context, conn *net.TCPConn, c capture.Connection) {
	r.seen <- c
	r.Server.ServeTCP(ctx, conn, c)
}

// start installs the rules and runs a server until the test ends.
func start(t *testing.T, m *machine, opts capture.Options) (s *capture.Server, seen <-chan capture.Connection, stop func()) {
	t.Helper()
	must(t, capture.Install(capture.InstallOptions{Instance: m.Instance, TCPPort: tcpPort}))
	t.Cleanup(func() {
		if err := capture.Remove(m.Instance); err != nil {
			t.Error(err)
		}
	})
	r := &recorder{seen: make(chan capture.Connection, 64)}
	opts.Listen = netip.AddrPortFrom(m.Gateway(), tcpPort)
	opts.Handler = r
	s = capture.New(opts)
	r.Server = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "the server listens", func() bool {
		conn, err := (&net.Dialer{Control: capture.Control}).Dial("tcp4", opts.Listen.String())
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	return s, r.seen, stop
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// publish gives a Service one port that leads to the endpoints.
func publish(t *testing.T, s *capture.Server, name string, at netip.AddrPort, udp bool, endpoints ...*config.Endpoint) {
	t.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	backend := config.ServiceBackend(namespace, short, at.Port(), udp)
	must(t, s.Apply(config.EndpointsType, []config.Resource{&config.Endpoints{Name: backend, Endpoints: endpoints}}, nil))
	must(t, s.Apply(config.ServiceType, []config.Resource{&config.Service{
		Name: name, ClusterIps: []string{at.Addr().String()},
		Ports: []*config.ServicePort{{Port: uint32(at.Port()), Backend: backend, Udp: udp}},
	}}, nil))
}

func at(a netip.AddrPort) *config.Endpoint {
	return &config.Endpoint{Address: a.Addr().String(), Port: uint32(a.Port())}
}

// exchange writes to an echo, ends its half, and returns what comes back until the other half ends.
func exchange(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	_, err := io.WriteString(conn, text)
	must(t, err)
	must(t, conn.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(conn)
	must(t, err)
	return string(got)
}

func TestTCPFromPodAndHost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server, client := m.pod(t), m.pod(t)
	s, seen, _ := start(t, m, capture.Options{})
	ip := netip.AddrPortFrom(m.service(10), 80)
	publish(t, s, "default/echo", ip, false, at(server.echoTCP(t)))

	conn, err := client.dial(t, "tcp4", ip)
	must(t, err)
	text := strings.Repeat("half a megabyte. ", 1<<15)
	if got := exchange(t, conn, text); got != text {
		t.Errorf("echo returned %d bytes, want %d equal ones", len(got), len(text))
	}
	want := capture.Connection{
		Source:      netip.MustParseAddrPort(conn.LocalAddr().String()),
		Destination: ip, Service: "default/echo", Backend: "service/default/echo/80/tcp",
	}
	if want.Source.Addr() != client.addr {
		t.Errorf("client dialled from %s, want %s", want.Source.Addr(), client.addr)
	}
	if diff := cmp.Diff(want, <-seen, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("connection of the pod (-want +got):\n%s", diff)
	}

	fromHost, err := net.Dial("tcp4", ip.String())
	must(t, err)
	defer func() { _ = fromHost.Close() }()
	if got := exchange(t, fromHost, "hello"); got != "hello" {
		t.Errorf("echo to the host = %q", got)
	}
	c := <-seen
	if !c.Source.Addr().IsLoopback() || c.Destination != ip {
		t.Errorf("connection of the host = %+v, want loopback to %s", c, ip)
	}
	eventually(t, "both connections are closed", func() bool { return s.Counts().Connections == 0 })
}

func TestTCPWithoutEndpointIsReset(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	client := m.pod(t)
	s, _, _ := start(t, m, capture.Options{DialTimeout: time.Second})
	empty := netip.AddrPortFrom(m.service(10), 80)
	publish(t, s, "default/empty", empty, false)
	// The pod exists, and nothing listens on the port.
	dead := netip.AddrPortFrom(m.service(11), 80)
	publish(t, s, "default/dead", dead, false, at(netip.AddrPortFrom(client.addr, 9)))

	for _, tt := range []struct {
		name string
		to   netip.AddrPort
	}{
		{name: "no endpoint", to: empty},
		{name: "endpoint refuses", to: dead},
		{name: "unknown cluster IP", to: netip.AddrPortFrom(m.service(99), 80)},
		{name: "unknown port", to: netip.AddrPortFrom(m.service(10), 81)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := client.dial(t, "tcp4", tt.to)
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("error = %v, want a reset", err)
			}
		})
	}
	if s.Counts().Refused < 4 {
		t.Errorf("refused = %d, want at least 4", s.Counts().Refused)
	}
}

func TestTCPTriesAnotherEndpoint(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server, client := m.pod(t), m.pod(t)
	s, _, _ := start(t, m, capture.Options{})
	ip := netip.AddrPortFrom(m.service(10), 80)
	publish(t, s, "default/echo", ip, false, at(netip.AddrPortFrom(server.addr, 9)), at(server.echoTCP(t)))
	for range 4 {
		conn, err := client.dial(t, "tcp4", ip)
		must(t, err)
		if got := exchange(t, conn, "x"); got != "x" {
			t.Errorf("echo = %q, want x", got)
		}
	}
}

func TestLocalListenerIsServedInProcess(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	client := m.pod(t)
	local := netip.AddrPortFrom(m.Gateway(), 8081)
	s, _, _ := start(t, m, capture.Options{LocalAddress: local, ServeLocal: func(conn net.Conn) {
		_, _ = io.WriteString(conn, "local "+conn.RemoteAddr().String())
		_ = conn.Close()
	}})
	ip := netip.AddrPortFrom(m.service(10), 80)
	publish(t, s, "weft-system/local-gateway", ip, false, at(local))
	conn, err := client.dial(t, "tcp4", ip)
	must(t, err)
	got, err := io.ReadAll(conn)
	must(t, err)
	if want := "local " + conn.LocalAddr().String(); string(got) != want {
		t.Errorf("answer = %q, want %q", got, want)
	}
}

func TestDrainWaitsForThePod(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.pod(t)
	release := make(chan struct{})
	asked := make(chan netip.Addr, 1)
	start(t, m, capture.Options{Drain: func(ctx context.Context, pod netip.Addr) error {
		asked <- pod
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	answered := make(chan int, 1)
	go func() {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).
			Get("http://" + netip.AddrPortFrom(p.addr, 8022).String() + "/wait-for-drain")
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	if got := <-asked; got != p.addr {
		t.Errorf("asked about %s, want %s", got, p.addr)
	}
	select {
	case code := <-answered:
		t.Errorf("answered %d before the pod was drained", code)
	default:
	}
	close(release)
	if code := <-answered; code != http.StatusOK {
		t.Errorf("status = %d, want 200", code)
	}
}

func TestUDPFromPodAndHost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server, client := m.pod(t), m.pod(t)
	s, _, _ := start(t, m, capture.Options{UDPIdleTimeout: 50 * time.Millisecond})
	ip := netip.AddrPortFrom(m.service(53), 53)
	first := server.echoUDP(t, "first ")
	publish(t, s, "default/echo", ip, true, at(first))

	conn, err := client.dial(t, "udp4", ip)
	must(t, err)
	eventually(t, "a datagram of the pod is answered", func() bool { return ask(conn, "a") == "first a" })
	host, err := net.Dial("udp4", ip.String())
	must(t, err)
	defer func() { _ = host.Close() }()
	eventually(t, "a datagram of the host is answered", func() bool { return ask(host, "b") == "first b" })
	eventually(t, "silent flows are forgotten", func() bool { return s.Counts().Flows == 0 })

	// The flow of a client follows the endpoints.
	if got := ask(conn, "c"); got != "first c" {
		t.Errorf("after the flow was forgotten: %q", got)
	}
	publish(t, s, "default/echo", ip, true, at(server.echoUDP(t, "second ")))
	if got := ask(conn, "d"); got != "second d" {
		t.Errorf("after the endpoint was replaced: %q", got)
	}

	must(t, s.Apply(config.ServiceType, nil, []string{"default/echo"}))
	eventually(t, "the port is closed", func() bool { return ask(host, "e") == "" })
}

// ask sends a datagram and returns the answer, empty when none comes.
func ask(conn net.Conn, text string) string {
	if _, err := io.WriteString(conn, text); err != nil {
		return ""
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func TestStrayTrafficDoesNotReachOtherSockets(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	client := m.pod(t)
	start(t, m, capture.Options{})
	everywhere, err := net.ListenPacket("udp4", "0.0.0.0:0")
	must(t, err)
	defer func() { _ = everywhere.Close() }()
	port := netip.MustParseAddrPort(everywhere.LocalAddr().String()).Port()
	conn, err := client.dial(t, "udp4", netip.AddrPortFrom(m.service(77), port))
	must(t, err)
	_, err = io.WriteString(conn, "stray")
	must(t, err)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("reading after a stray datagram = %v, want connection refused", err)
	}

	l, err := net.Listen("tcp4", "0.0.0.0:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	tcp := netip.MustParseAddrPort(l.Addr().String()).Port()
	own, err := (&net.Dialer{Control: capture.Control}).Dial("tcp4", netip.AddrPortFrom(m.service(77), tcp).String())
	if err == nil {
		_ = own.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the proxy's own dial of a cluster IP = %v, want connection refused", err)
	}
}

func TestConnectionsFinishWhileTheServerDrains(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server, client := m.pod(t), m.pod(t)
	s, seen, stop := start(t, m, capture.Options{})
	ip := netip.AddrPortFrom(m.service(10), 80)
	publish(t, s, "default/echo", ip, false, at(server.echoTCP(t)))
	conn, err := client.dial(t, "tcp4", ip)
	must(t, err)
	<-seen
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	eventually(t, "the listener is closed", func() bool {
		late, err := (&net.Dialer{Control: capture.Control}).Dial("tcp4", netip.AddrPortFrom(m.Gateway(), tcpPort).String())
		if err == nil {
			_ = late.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if got := exchange(t, conn, "still"); got != "still" {
		t.Errorf("echo while draining = %q", got)
	}
	<-stopped
}

func TestInstallIsIdempotentAndRemovedCompletely(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	opts := capture.InstallOptions{Instance: m.Instance, TCPPort: tcpPort}
	must(t, capture.Install(opts))
	before := rules(t, m)
	if before == 0 {
		t.Error("Install left no rule")
	}
	must(t, capture.Install(opts))
	if after := rules(t, m); after != before {
		t.Errorf("second Install made %d rules of %d", after, before)
	}
	if got := routes(t, m); got != 1 {
		t.Errorf("local routes = %d, want 1", got)
	}
	must(t, capture.Remove(m.Instance))
	must(t, capture.Remove(m.Instance))
	if got := rules(t, m); got != 0 {
		t.Errorf("rules after Remove = %d, want none", got)
	}
	if got := routes(t, m); got != 0 {
		t.Errorf("local routes after Remove = %d, want none", got)
	}
}

func rules(t *testing.T, m *machine) int {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	chains, err := conn.ListChains()
	must(t, err)
	count := 0
	for _, chain := range chains {
		if chain.Table.Name == m.NFTTable()+"-mesh" {
			list, err := conn.GetRules(chain.Table, chain)
			must(t, err)
			count += len(list)
		}
	}
	return count
}

func routes(t *testing.T, m *machine) int {
	t.Helper()
	list, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	must(t, err)
	count := 0
	for _, route := range list {
		if route.Dst != nil && route.Dst.String() == m.ServiceCIDR.String() {
			count++
		}
	}
	return count
}
