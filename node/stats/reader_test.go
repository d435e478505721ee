package stats

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// write makes files with their directories below a temporary directory, which it returns.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	memory1 = "cache 10\nrss 20\ninactive_file 1\ntotal_rss 4096\ntotal_pgfault 77\ntotal_pgmajfault 3\ntotal_inactive_file 1000\n"
	memory2 = "anon 4096\nfile 9000\ninactive_file 1000\npgfault 77\npgmajfault 3\n"
	cpu2    = "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"
)

func TestContainer(t *testing.T) {
	t.Parallel()
	want := Usage{CPU: 1500 * time.Millisecond, Memory: 10000, WorkingSet: 9000, RSS: 4096, PageFaults: 77, MajorPageFaults: 3}
	for _, tt := range []struct {
		name  string
		v2    bool
		files map[string]string
	}{
		{name: "version 1", files: map[string]string{
			"cpuacct/weft/pod1/a/cpuacct.usage": "1500000000\n", "memory/weft/pod1/a/memory.usage_in_bytes": "10000\n",
			"memory/weft/pod1/a/memory.stat": memory1,
		}},
		{name: "version 2", v2: true, files: map[string]string{
			"weft/pod1/a/cpu.stat": cpu2, "weft/pod1/a/memory.current": "10000\n", "weft/pod1/a/memory.stat": memory2,
		}},
		{name: "hybrid with controllers in version 1", files: map[string]string{
			"cpuacct/weft/pod1/a/cpuacct.usage": "1500000000\n", "memory/weft/pod1/a/memory.usage_in_bytes": "10000\n",
			"memory/weft/pod1/a/memory.stat": memory1, "unified/weft/pod1/a/cgroup.procs": "",
		}},
		{name: "hybrid with memory in version 2", files: map[string]string{
			"cpuacct/weft/pod1/a/cpuacct.usage": "1500000000\n", "unified/weft/pod1/a/memory.current": "10000\n",
			"unified/weft/pod1/a/memory.stat": memory2,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newReader(write(t, tt.files), "/proc", "/weft", tt.v2)
			got, err := r.Container("pod1/a")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Usage{}, "At")); diff != "" {
				t.Errorf("usage (-want +got):\n%s", diff)
			}
			if time.Since(got.At) > time.Minute {
				t.Errorf("measured at %v", got.At)
			}
			if _, err := r.Container("pod1/b"); !errors.Is(err, ErrGone) {
				t.Errorf("a container that does not exist: %v", err)
			}
		})
	}
}

func TestBrokenCounters(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"no number": "usage_usec many\n", "no key": "user_usec 1\n"} {
		root := write(t, map[string]string{
			"weft/a/cpu.stat": content, "weft/a/memory.current": "1\n", "weft/a/memory.stat": memory2,
		})
		if _, err := newReader(root, "/proc", "/weft", true).Container("a"); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	proc := write(t, map[string]string{
		"stat":    "cpu  100 20 30 9000 500 4 6 70 0 0\ncpu0 1 2 3\nbtime 1700000000\n",
		"meminfo": "MemTotal:       1000 kB\nMemFree:         300 kB\nInactive(file):  200 kB\nAnonPages:       100 kB\n",
	})
	r := newReader("/nowhere", proc, "/weft", true)
	if got := r.BootedAt(); got.Unix() != 1700000000 {
		t.Errorf("booted at %v", got)
	}
	got, err := r.Machine()
	if err != nil {
		t.Fatal(err)
	}
	want := Usage{CPU: 1600 * time.Millisecond, Memory: 700 << 10, WorkingSet: 500 << 10, RSS: 100 << 10}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Usage{}, "At")); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}

// TestThisMachine reads what the kernel really writes.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	r, err := NewReader("/weft")
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.Machine()
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU <= 0 || u.WorkingSet == 0 || u.WorkingSet > u.Memory {
		t.Errorf("usage %+v", u)
	}
	if _, err := r.Networks(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	proc := write(t, map[string]string{"7/net/dev": `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1000      10    1    0    0     0          0         0     2000      20    2    0    0     0       0          0
`})
	got, err := newReader("/nowhere", proc, "/weft", true).Networks(7)
	if err != nil {
		t.Fatal(err)
	}
	want := []Network{{Name: "eth0", Received: 1000, ReceiveErrors: 1, Sent: 2000, SendErrors: 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
}

// BenchmarkContainer is the cost of one container in one measurement.
func BenchmarkContainer(b *testing.B) {
	root := b.TempDir()
	dir := filepath.Join(root, "weft", "a")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	for name, content := range map[string]string{"cpu.stat": cpu2, "memory.current": "10000\n", "memory.stat": memory2} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	r := newReader(root, "/proc", "/weft", true)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Container("a"); err != nil {
			b.Fatal(err)
		}
	}
}
