package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := State{
		Monitor: ProcessID{PID: 1, Boot: "b", Start: 2}, Process: ProcessID{PID: 3, Boot: "b", Start: 4},
		StartedAt: time.Unix(5, 6).UTC(), FinishedAt: time.Unix(7, 8).UTC(), ExitCode: 137, Signal: 9, OOMKilled: true,
	}
	if err := WriteState(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("got files %v, %v, want only the state", files, err)
	}
}

func TestProcessID(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := ProcessID{PID: cmd.Process.Pid}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	self, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	otherBoot, otherStart := self, self
	otherBoot.Boot, otherStart.Start = "other", self.Start+1
	tests := []struct {
		name string
		id   ProcessID
		want bool
	}{
		{name: "this process", id: self, want: true},
		{name: "same number before a reboot", id: otherBoot},
		{name: "same number given again", id: otherStart},
		{name: "ended", id: child},
		{name: "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.id.Alive(); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}

func TestOOMKilled(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file string
		want       bool
	}{
		{name: "version 1, none", file: "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"},
		{name: "version 1, one", file: "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", want: true},
		{name: "version 2, none", file: "low 0\nhigh 0\nmax 5\noom 1\noom_kill 0\noom_group_kill 0\n"},
		{name: "version 2, ten", file: "low 0\nhigh 0\nmax 5\noom 1\noom_kill 10\noom_group_kill 0\n", want: true},
		{name: "empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := oomKilled(path); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
	if oomKilled("/nonexistent") {
		t.Error("a missing file: got true, want false")
	}
}
