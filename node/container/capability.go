package container

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// noOOMScoreLimit is below every score that the kernel knows.
const noOOMScoreLimit = -1000

// defaultCapabilities are containerd's.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// capabilityNames are those of Linux, each at the index that is its number.
func capabilityNames() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
		"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
		"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
		"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// capabilities returns the set for a process. Privileged means all that weft itself may pass on.
func capabilities(p Process, privileged bool) ([]string, error) {
	held := heldCapabilities()
	if privileged {
		return held, nil
	}
	set := defaultCapabilities()
	add, err := capabilityList(p.AddCapabilities, held)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityList(p.DropCapabilities, held)
	if err != nil {
		return nil, err
	}
	// As in CRI: "ALL" is the start, single names are applied to it.
	if slices.Contains(p.AddCapabilities, "ALL") {
		set = held
	}
	if slices.Contains(p.DropCapabilities, "ALL") {
		set = nil
	}
	set = slices.DeleteFunc(append(slices.Clone(set), add...), func(name string) bool { return slices.Contains(drop, name) })
	slices.Sort(set)
	// What weft does not hold it cannot give, and the OCI runtime would refuse to start the process.
	return slices.DeleteFunc(slices.Compact(set), func(name string) bool { return !slices.Contains(held, name) }), nil
}

// capabilityList turns names without CAP_ into those of the kernel, leaving out ALL.
func capabilityList(names, held []string) ([]string, error) {
	known := capabilityNames()
	var list []string
	for _, name := range names {
		if strings.EqualFold(name, "ALL") {
			continue
		}
		full := strings.ToUpper(name)
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		if !slices.Contains(known, full) && !slices.Contains(held, full) {
			return nil, fmt.Errorf("unknown capability %q", name)
		}
		list = append(list, full)
	}
	return list, nil
}

// heldCapabilities are those of this process's bounding set.
func heldCapabilities() []string {
	var held []string
	for number, name := range capabilityNames() {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0)
		if err == nil && in == 1 {
			held = append(held, name)
		}
	}
	return held
}

// minOOMScore is the lowest oom_score_adj that this process may set for another: without CAP_SYS_RESOURCE its own.
func minOOMScore() (int, error) {
	effective, err := effectiveCapabilities()
	if err != nil {
		return 0, err
	}
	if effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return noOOMScoreLimit, nil
	}
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("reading own OOM score: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func effectiveCapabilities() (uint64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("reading own capabilities: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if set, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(set), 16, 64)
		}
	}
	return 0, fmt.Errorf("reading own capabilities: no CapEff: %w", lines.Err())
}
