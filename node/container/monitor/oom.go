package monitor

import (
	"bytes"
	"os"
)

// oomKilled reports whether the kernel killed a process of a cgroup for its memory limit. The file is memory.oom_control of
// cgroup v1 or memory.events of v2; both count in a line "oom_kill <n>". It is read once after the container has ended, when
// its cgroup is still there.
func oomKilled(file string) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		if n, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			return string(n) != "0"
		}
	}
	return false
}
