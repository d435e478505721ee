package containertest

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/weft-dev/weft/node/container"
)

func (h Harness) resources(t *testing.T) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		spec := h.spec(t, "allocate", "64")
		spec.Resources = container.Resources{MemoryLimit: 32 << 20, CgroupPath: "pod1/a"}
		got, _ := run(t, h.New(t), spec)
		if !got.OOMKilled || got.ExitCode != 137 || got.Signal != int(syscall.SIGKILL) {
			t.Errorf("got %+v, want a container that was killed for its memory", got)
		}
	})
	t.Run("memory suffices", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		spec := h.spec(t, "allocate", "16")
		spec.Resources = container.Resources{MemoryLimit: 64 << 20, CgroupPath: "pod1/a"}
		if _, err := r.Start(ctx(t), spec); err != nil {
			t.Fatal(err)
		}
		eventually(t, "allocation", func() bool { return output(t, spec.LogPath) == "ready\n" })
		kill(t, r, syscall.SIGKILL)
		if got := wait(t, r, "a"); got.OOMKilled {
			t.Errorf("got %+v, want one that was not killed for its memory", got)
		}
	})
	t.Run("processes", func(t *testing.T) {
		t.Parallel()
		spec := h.spec(t, "processes", "100")
		spec.Resources = container.Resources{PidsLimit: 40}
		_, out := run(t, h.New(t), spec)
		var started int
		if _, err := fmt.Sscanf(out[strings.LastIndex(out, "started"):], "started %d", &started); err != nil || started >= 40 {
			t.Errorf("got output %q, %v, want fewer than 40 started", out, err)
		}
	})
	tests := []struct {
		name, v1, v2, wantV1, wantV2 string
		resources                    container.Resources
	}{
		{
			name: "shares", resources: container.Resources{CPUShares: 512},
			v1: "/sys/fs/cgroup/cpu/cpu.shares", wantV1: "512\n", v2: "/sys/fs/cgroup/cpu.weight", wantV2: "20\n",
		},
		{
			name: "quota", resources: container.Resources{CPUQuota: 50_000, CPUPeriod: 100_000},
			v1: "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", wantV1: "50000\n", v2: "/sys/fs/cgroup/cpu.max", wantV2: "50000 100000\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path, want := tt.v1, tt.wantV1
			if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
				path, want = tt.v2, tt.wantV2
			}
			spec := h.spec(t, "read", path)
			spec.Resources = tt.resources
			if _, out := run(t, h.New(t), spec); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
	t.Run("OOM score", func(t *testing.T) {
		t.Parallel()
		spec := h.spec(t, "read", "/proc/self/oom_score_adj")
		spec.Resources = container.Resources{OOMScoreAdj: 900}
		if _, out := run(t, h.New(t), spec); out != "900\n" {
			t.Errorf("got %q, want 900", out)
		}
	})
	t.Run("OOM score that needs a privilege", func(t *testing.T) {
		t.Parallel()
		spec := h.spec(t, "exit", "0")
		spec.Resources = container.Resources{OOMScoreAdj: -997}
		if got, _ := run(t, h.New(t), spec); got.ExitCode != 0 {
			t.Errorf("got %+v, want it to run all the same", got)
		}
	})
}
