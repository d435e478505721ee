package node

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// maxPods is the node's limit. The bridge has more addresses; the scheduler has to have some number.
const maxPods = 5000

// machine is what is to be known about this machine.
type machine struct {
	memory  int64
	storage int64
	info    v1.NodeSystemInfo
}

func readMachine() (machine, error) {
	m := machine{info: v1.NodeSystemInfo{OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH}}
	var err error
	if m.memory, err = readMemory("/proc/meminfo"); err != nil {
		return m, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err == nil {
		m.storage = int64(fs.Blocks) * fs.Bsize
	}
	m.info.MachineID, m.info.SystemUUID = line("/etc/machine-id"), line("/sys/class/dmi/id/product_uuid")
	m.info.BootID, m.info.KernelVersion = line("/proc/sys/kernel/random/boot_id"), line("/proc/sys/kernel/osrelease")
	m.info.OSImage = osName("/etc/os-release")
	m.info.ContainerRuntimeVersion = "weft://1.0.0"
	m.info.KubeletVersion = "v1.36.3"
	return m, nil
}

// readMemory is the machine's memory in bytes.
func readMemory(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("reading the memory: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading the memory: %w", err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("reading the memory: no total in %s", path)
}

// line is the first line of a file, empty when it cannot be read.
func line(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	return strings.TrimSpace(first)
}

func osName(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return runtime.GOOS
	}
	for l := range strings.Lines(string(raw)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return runtime.GOOS
}

// capacity is what the scheduler may give to pods.
func (m machine) capacity() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(m.memory, resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(m.storage, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
}
