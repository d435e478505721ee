package stats

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that a cgroup does not exist, because its container has ended or has not started.
var ErrGone = errors.New("no such cgroup")

// Usage is what something has used at one moment.
type Usage struct {
	At time.Time
	// CPU is the processor time since the start.
	CPU time.Duration
	// Memory in bytes: all that is charged, that without the page cache which the kernel would give back first, and that which is
	// no page cache at all.
	Memory, WorkingSet, RSS uint64
	// PageFaults since the start, and of them those that waited for a disk.
	PageFaults, MajorPageFaults uint64
}

// Reader reads counters of the kernel. It has no state and may be used concurrently.
type Reader struct {
	// cpu and memory are the directories below which cgroups are found; cpu2 and memory2 say that they are of version 2.
	cpu, memory   string
	cpu2, memory2 bool
	proc          string
}

// NewReader returns a Reader of the containers whose cgroups are below parent, relative to each hierarchy's root.
func NewReader(parent string) (Reader, error) {
	const mount = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return Reader{}, fmt.Errorf("finding cgroups: %w", err)
	}
	return newReader(mount, "/proc", parent, st.Type == unix.CGROUP2_SUPER_MAGIC), nil
}

// newReader looks for each controller in version 1 first: where it is there, version 2 does not have it.
func newReader(mount, proc, parent string, v2 bool) Reader {
	find := func(controller string) (string, bool) {
		if v2 {
			return filepath.Join(mount, parent), true
		}
		if dir := filepath.Join(mount, controller); exists(dir) {
			return filepath.Join(dir, parent), false
		}
		return filepath.Join(mount, "unified", parent), true
	}
	r := Reader{proc: proc}
	r.cpu, r.cpu2 = find("cpuacct")
	r.memory, r.memory2 = find("memory")
	return r
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Container reads what a container has used. The error is ErrGone when it has no cgroup.
func (r Reader) Container(cgroup string) (Usage, error) {
	u := Usage{At: time.Now()}
	if err := errors.Join(r.readCPU(filepath.Join(r.cpu, cgroup), &u), r.readMemory(filepath.Join(r.memory, cgroup), &u)); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return Usage{}, ErrGone
		}
		return Usage{}, fmt.Errorf("measuring a container: %w", err)
	}
	return u, nil
}

func (r Reader) readCPU(dir string, u *Usage) error {
	if !r.cpu2 {
		n, err := readNumber(filepath.Join(dir, "cpuacct.usage"))
		u.CPU = time.Duration(n)
		return err
	}
	values, err := readFields(filepath.Join(dir, "cpu.stat"), "usage_usec")
	if err == nil {
		u.CPU = time.Duration(values[0]) * time.Microsecond
	}
	return err
}

// readMemory computes the working set as kubelets do: what is charged, less the part of the page cache that was not used lately.
func (r Reader) readMemory(dir string, u *Usage) error {
	usage, keys := "memory.usage_in_bytes", []string{"total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"}
	if r.memory2 {
		usage, keys = "memory.current", []string{"inactive_file", "anon", "pgfault", "pgmajfault"}
	}
	n, err := readNumber(filepath.Join(dir, usage))
	if err != nil {
		return err
	}
	values, err := readFields(filepath.Join(dir, "memory.stat"), keys...)
	if err != nil {
		return err
	}
	u.Memory, u.WorkingSet, u.RSS, u.PageFaults, u.MajorPageFaults = n, less(n, values[0]), values[1], values[2], values[3]
	return nil
}

// ticks is the unit of /proc/stat, which is the same on every Linux.
const ticks = 10 * time.Millisecond

// Machine reads what all of the machine has used since it booted.
func (r Reader) Machine() (Usage, error) {
	u := Usage{At: time.Now()}
	stat, err := os.ReadFile(filepath.Join(r.proc, "stat"))
	if err != nil {
		return Usage{}, fmt.Errorf("measuring the machine: %w", err)
	}
	first, _, _ := bytes.Cut(stat, []byte("\n"))
	// cpu user nice system idle iowait irq softirq steal: all but the two in which nothing runs, and that which others took.
	for i, field := range bytes.Fields(first) {
		if i == 0 || i == 4 || i == 5 || i > 7 {
			continue
		}
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("reading /proc/stat: %w", err)
		}
		u.CPU += time.Duration(n) * ticks
	}
	m, err := readFields(filepath.Join(r.proc, "meminfo"), "MemTotal:", "MemFree:", "Inactive(file):", "AnonPages:")
	if err != nil {
		return Usage{}, fmt.Errorf("measuring the machine: %w", err)
	}
	u.Memory = less(m[0], m[1]) << 10
	u.WorkingSet, u.RSS = less(u.Memory, m[2]<<10), m[3]<<10
	return u, nil
}

// BootedAt is when the machine was started, zero when the kernel does not say.
func (r Reader) BootedAt() time.Time {
	values, err := readFields(filepath.Join(r.proc, "stat"), "btime")
	if err != nil {
		return time.Time{}
	}
	return time.Unix(int64(values[0]), 0)
}

// Network is what has gone through an interface, in bytes.
type Network struct {
	Name                    string
	Received, ReceiveErrors uint64
	Sent, SendErrors        uint64
}

// Networks reads the interfaces that a process sees, without loopback.
func (r Reader) Networks(pid int) ([]Network, error) {
	data, err := os.ReadFile(filepath.Join(r.proc, strconv.Itoa(pid), "net", "dev"))
	if err != nil {
		return nil, fmt.Errorf("measuring a network: %w", err)
	}
	var out []Network
	for line := range strings.Lines(string(data)) {
		name, counters, ok := strings.Cut(line, ":")
		fields := strings.Fields(counters)
		name = strings.TrimSpace(name)
		if !ok || name == "lo" || len(fields) < 11 {
			continue
		}
		n := Network{Name: name}
		for i, to := range map[int]*uint64{0: &n.Received, 2: &n.ReceiveErrors, 8: &n.Sent, 10: &n.SendErrors} {
			if *to, err = strconv.ParseUint(fields[i], 10, 64); err != nil {
				return nil, fmt.Errorf("measuring network %q: %w", name, err)
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// less subtracts counters that were read one after the other, so that their difference can be below zero.
func less(a, b uint64) uint64 { return a - min(a, b) }

func readNumber(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 64)
}

// readFields reads the numbers behind keys in a file of lines "key number ...". All keys must be there.
func readFields(path string, keys ...string) ([]uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values, found := make([]uint64, len(keys)), 0
	for line := range bytes.Lines(data) {
		key, rest, _ := bytes.Cut(line, []byte(" "))
		for i := range keys {
			if string(key) != keys[i] {
				continue
			}
			number, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
			if values[i], err = strconv.ParseUint(string(number), 10, 64); err != nil {
				return nil, fmt.Errorf("reading %s of %s: %w", keys[i], path, err)
			}
			found++
		}
	}
	if found != len(keys) {
		return nil, fmt.Errorf("reading %s: %d of %v found", path, found, keys)
	}
	return values, nil
}
