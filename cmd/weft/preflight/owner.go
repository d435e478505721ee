package preflight

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// listening is the state TCP_LISTEN in /proc/net/tcp.
const listening = "0A"

// owner names the process that listens on a TCP port, as " by nginx (pid 123)", or is empty when that cannot be found out.
func owner(port int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if inode := listener(table, port); inode != "" {
			return holder("socket:[" + inode + "]")
		}
	}
	return ""
}

// listener finds the inode of the socket that listens on a port.
func listener(table string, port int) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	suffix := fmt.Sprintf(":%04X", port)
	const local, state, inode = 1, 3, 9
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) > inode && strings.HasSuffix(fields[local], suffix) && fields[state] == listening {
			return fields[inode]
		}
	}
	return ""
}

// holder finds the process that has a socket open.
func holder(socket string) string {
	descriptors, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, descriptor := range descriptors {
		if target, err := os.Readlink(descriptor); err == nil && target == socket {
			process := filepath.Dir(filepath.Dir(descriptor))
			name, err := os.ReadFile(filepath.Join(process, "comm"))
			if err != nil {
				return ""
			}
			return fmt.Sprintf(" by %s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(process))
		}
	}
	return ""
}
