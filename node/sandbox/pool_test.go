package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// instances counts the instances of the tests, which share one network namespace and differ in their names and networks.
var instances atomic.Int32

func testInstance(tb testing.TB) instance.Instance {
	tb.Helper()
	n := instances.Add(1)
	i := instance.Default()
	i.Name, i.StateDir = fmt.Sprintf("t%d", n), tb.TempDir()
	i.PodCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, byte(n), 0}), 24)
	tb.Cleanup(func() {
		if err := RemoveAll(context.Background(), i); err != nil {
			tb.Errorf("removing instance: %v", err)
		}
	})
	return i
}

func newPool(tb testing.TB, i instance.Instance, size int) *Pool {
	tb.Helper()
	p, err := NewPool(Options{Instance: i, Size: size})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.network.close)
	return p
}

func acquire(tb testing.TB, p *Pool, id string) *Sandbox {
	tb.Helper()
	s, err := p.Acquire(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// inside runs fn on a thread in a network namespace.
func inside(tb testing.TB, path string, fn func() error) error {
	tb.Helper()
	return onThread(func() error { // which ends the thread
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// serve accepts connections in a network namespace and answers each with the address that it came from.
func serve(tb testing.TB, netns, addr string) {
	tb.Helper()
	var l net.Listener
	err := inside(tb, netns, func() (err error) {
		l, err = net.Listen("tcp4", addr)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			_ = c.Close()
		}
	}()
}

// ask connects from a network namespace to a server made by serve and returns its answer.
func ask(tb testing.TB, netns, addr string, timeout time.Duration) (string, error) {
	tb.Helper()
	var answer []byte
	err := inside(tb, netns, func() error {
		c, err := net.DialTimeout("tcp4", addr, timeout)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		answer, err = io.ReadAll(c)
		return err
	})
	return string(answer), err
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestPodTraffic(t *testing.T) {
	t.Parallel()
	i := testInstance(t)
	p := newPool(t, i, -1)
	a, b := acquire(t, p, "a"), acquire(t, p, "b")
	const host = "/proc/self/ns/net"
	serve(t, a.NetNS, ":80") // a port that needs no privilege inside
	serve(t, host, net.JoinHostPort(i.Gateway().String(), "8080"))
	tests := []struct {
		name, from, to, want string
	}{
		{name: "host to pod", from: host, to: a.Address.String() + ":80", want: i.Gateway().String()},
		{name: "pod to pod", from: b.NetNS, to: a.Address.String() + ":80", want: b.Address.String()},
		{name: "pod to itself", from: a.NetNS, to: a.Address.String() + ":80", want: a.Address.String()},
		{name: "pod to its loopback", from: a.NetNS, to: "127.0.0.1:80", want: "127.0.0.1"},
		{name: "pod to gateway", from: a.NetNS, to: i.Gateway().String() + ":8080", want: a.Address.String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ask(t, tt.from, tt.to, 5*time.Second)
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// outside makes a neighbour of the machine: a network namespace behind an interface of the host, with a route to the pods.
func outside(tb testing.TB, i instance.Instance) (netns string, addr netip.Addr) {
	tb.Helper()
	third := i.PodCIDR.Addr().As4()[2]
	near, far := netip.AddrFrom4([4]byte{192, 168, third, 1}), netip.AddrFrom4([4]byte{192, 168, third, 2})
	other := i
	other.Name, other.StateDir, other.PodCIDR = i.Name+"o", tb.TempDir(), netip.PrefixFrom(near, 24).Masked()
	tb.Cleanup(func() {
		if err := RemoveAll(context.Background(), other); err != nil {
			tb.Error(err)
		}
	})
	n, err := newNetwork(other)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(n.close)
	e := &entry{dir: filepath.Join(directory(other), "outside"), address: far}
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := n.connect(e); err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(e.dir, netFile), far
}

func TestOutside(t *testing.T) {
	t.Parallel()
	i := testInstance(t)
	p := newPool(t, i, -1)
	a := acquire(t, p, "a")
	netns, addr := outside(t, i)
	serve(t, netns, ":7000")
	serve(t, a.NetNS, ":80")

	got, err := ask(t, a.NetNS, addr.String()+":7000", 5*time.Second)
	if err != nil || got == a.Address.String() {
		t.Errorf("pod to outside: the server saw %q, %v, want the machine's address", got, err)
	}
	if got, err := ask(t, netns, a.Address.String()+":80", 300*time.Millisecond); err == nil {
		t.Errorf("outside to pod: got the answer %q, want no connection", got)
	}
}

func TestWarmPool(t *testing.T) {
	t.Parallel()
	p := newPool(t, testInstance(t), 3)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	warm := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.warm)
	}
	eventually(t, "filling", func() bool { return warm() == 3 })
	seen := map[netip.Addr]bool{}
	for n := range 3 {
		seen[acquire(t, p, fmt.Sprintf("pod%d", n)).Address] = true
	}
	if len(seen) != 3 {
		t.Errorf("got %d different addresses, want 3", len(seen))
	}
	eventually(t, "refilling", func() bool { return warm() == 3 })
	again := acquire(t, p, "pod0")
	if !seen[again.Address] {
		t.Errorf("acquiring an id again gave the new address %s", again.Address)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	i := testInstance(t)
	p := newPool(t, i, -1)
	first := acquire(t, p, "a")
	for range 2 { // the second finds nothing to do
		if err := p.Release(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if p.network.hasPort(first.Address) {
		t.Error("the interface is still there")
	}
	if _, err := os.Stat(filepath.Dir(first.NetNS)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if second := acquire(t, p, "a"); second.Address == first.Address {
		t.Errorf("address %s was reused at once", second.Address)
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	i := testInstance(t)
	before := newPool(t, i, 1)
	kept, orphan := acquire(t, before, "kept"), acquire(t, before, "orphan")
	if err := before.fill(); err != nil {
		t.Fatal(err)
	}
	warm := before.warm[0].address
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = before.network.port+"00ffff", before.network.bridge.Index
	stray := &netlink.Veth{LinkAttrs: attrs, PeerName: i.Name + "peer", PeerTxQLen: -1}
	if err := before.network.links.LinkAdd(stray); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(before.dir, "halfmade"), 0o700); err != nil {
		t.Fatal(err)
	}

	after := newPool(t, i, 1)
	early := acquire(t, after, "early") // before Adopt, and warm from before
	if err := after.Adopt(t.Context(), []string{"kept", "lost"}); err != nil {
		t.Fatal(err)
	}
	if early.Address != warm {
		t.Errorf("got address %s, want that of the warm sandbox %s", early.Address, warm)
	}
	if got, ok := after.Lookup("kept"); !ok || *got != *kept {
		t.Errorf("kept: got %v, want %v", got, kept)
	}
	for _, id := range []string{"orphan", "lost", "halfmade"} {
		if got, ok := after.Lookup(id); ok {
			t.Errorf("%s: got %v, want none", id, got)
		}
	}
	if got, err := after.network.ports(); err != nil || len(got) != 2 {
		t.Errorf("interfaces on the bridge: got %v, %v, want two", got, err)
	}
	if next := acquire(t, after, "next"); next.Address == orphan.Address || next.Address == kept.Address {
		t.Errorf("address %s was reused after a restart", next.Address)
	}
}

// TestLoadAfterReboot simulates a reboot, which keeps files and loses mounts.
func TestLoadAfterReboot(t *testing.T) {
	t.Parallel()
	i := testInstance(t)
	s := acquire(t, newPool(t, i, -1), "a")
	for _, path := range []string{s.NetNS, s.IPCNS, s.UTSNS} {
		if err := unix.Unmount(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := newPool(t, i, -1).Lookup("a"); ok {
		t.Errorf("got %v, want none", got)
	}
}

func TestRemoveAll(t *testing.T) {
	t.Parallel()
	i := testInstance(t)
	s := acquire(t, newPool(t, i, -1), "a")
	for range 2 { // the second finds nothing to do
		if err := RemoveAll(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := netlink.LinkByName(i.Bridge()); err == nil {
		t.Error("the bridge is still there")
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), s.NetNS) {
		t.Error("the network namespace is still bound")
	}
}

func TestAcquireID(t *testing.T) {
	t.Parallel()
	p := newPool(t, testInstance(t), -1)
	for _, id := range []string{"", ".", "..", ".warm-1", "a/b"} {
		if s, err := p.Acquire(t.Context(), id); err == nil {
			t.Errorf("id %q: got %v, want an error", id, s)
		}
	}
}

// BenchmarkSandbox measures the life of a sandbox; what a pod waits for is only "acquire".
func BenchmarkSandbox(b *testing.B) {
	p := newPool(b, testInstance(b), -1)
	var make, acquired, released time.Duration
	for b.Loop() {
		start := time.Now()
		if err := p.fill(); err != nil {
			b.Fatal(err)
		}
		made := time.Now()
		acquire(b, p, "pod")
		taken := time.Now()
		if err := p.Release(b.Context(), "pod"); err != nil {
			b.Fatal(err)
		}
		make, acquired, released = make+made.Sub(start), acquired+taken.Sub(made), released+time.Since(taken)
	}
	for unit, d := range map[string]time.Duration{"make-us/op": make, "acquire-us/op": acquired, "release-us/op": released} {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), unit)
	}
}
