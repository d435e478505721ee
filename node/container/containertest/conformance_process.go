package containertest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/node/container"
)

// Conformance tests everything that container.Runtime promises, with real processes.
func Conformance(t *testing.T, h Harness) {
	t.Helper()
	t.Run("lifecycle", func(t *testing.T) {
		t.Parallel()
		Lifecycle(t, h)
	})
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		h.processes(t)
	})
	t.Run("privilege", func(t *testing.T) {
		t.Parallel()
		h.privileges(t)
	})
	t.Run("start error", func(t *testing.T) {
		t.Parallel()
		h.startErrors(t)
	})
	t.Run("signal", func(t *testing.T) {
		t.Parallel()
		h.signals(t)
	})
	t.Run("mount", func(t *testing.T) {
		t.Parallel()
		h.mounts(t)
	})
	t.Run("resource", func(t *testing.T) {
		t.Parallel()
		h.resources(t)
	})
	t.Run("namespace", func(t *testing.T) {
		t.Parallel()
		h.namespaces(t)
	})
	t.Run("exec", func(t *testing.T) {
		t.Parallel()
		h.execs(t)
	})
}

func (h Harness) processes(t *testing.T) {
	t.Helper()
	h.runAll(t, []processTest{
		{name: "arguments", args: []string{"echo", "a b", "c"}, want: "a b c\n"},
		{name: "exit code", args: []string{"exit", "42"}, wantCode: 42},
		{name: "standard error", args: []string{"complain", "oh"}, want: "oh\n"},
		{name: "line without an end", args: []string{"print", "half"}, want: "half"},
		{
			name: "environment with a name twice", args: []string{"env"}, want: "A=2\n",
			edit: func(s *container.Spec) { s.Process.Env = []string{"A=1", "A=2"} },
		},
		{name: "default path", args: []string{"env"}, want: "PATH=/usr/local/sbin:"},
		{name: "home of root", args: []string{"env"}, want: "HOME=/root\n"},
		{
			name: "command in the path", want: "found\n",
			edit: func(s *container.Spec) {
				s.Process.Args, s.Process.Env = []string{"program", "echo", "found"}, []string{"PATH=/bin:/"}
			},
		},
		{
			name: "working directory is made", args: []string{"pwd"}, want: "/some/where\n",
			edit: func(s *container.Spec) { s.Process.Cwd = "/some/where" },
		},
		{
			name: "user by number", args: []string{"id"}, want: "uid=1234 gid=0 groups=[0]\n",
			edit: func(s *container.Spec) { s.Process.User = "1234" },
		},
		{
			name: "user and group by number", args: []string{"id"}, want: "uid=1234 gid=5678 groups=[5678]\n",
			edit: func(s *container.Spec) { s.Process.User = "1234:5678" },
		},
		{
			name: "overridden user with groups", args: []string{"id"}, want: "uid=7 gid=8 groups=[8 9]\n",
			edit: func(s *container.Spec) {
				s.Process.User, s.Process.UID, s.Process.GID = "1234", new(int64(7)), new(int64(8))
				s.Process.SupplementalGroups = []int64{9}
			},
		},
		{
			name: "not a program", wantCode: anyFailure, want: "ormat error",
			edit: func(s *container.Spec) {
				file := textFile(t)
				if err := os.Chmod(file, 0o755); err != nil {
					t.Fatal(err)
				}
				s.Process.Args = []string{"/etc/text"}
				s.Mounts = []container.Mount{{Source: file, Destination: "/etc/text"}}
			},
		},
		{name: "no standard input", args: []string{"cat"}, want: ""},
		{
			name: "standard input kept open", args: []string{"link", "/proc/self/fd/0"}, want: "pipe:",
			edit: func(s *container.Spec) { s.Process.Stdin = true },
		},
		{
			name: "terminal", args: []string{"env"}, want: "TERM=xterm\r\n",
			edit: func(s *container.Spec) { s.Process.TTY = true },
		},
	})
}

// privileges are what a process may do.
func (h Harness) privileges(t *testing.T) {
	t.Helper()
	h.runAll(t, []processTest{
		{name: "capabilities", args: []string{"read", "/proc/self/status"}, want: "CapEff:\t00000000a80425fb\n"},
		{
			name: "dropped capabilities", args: []string{"read", "/proc/self/status"}, want: "CapEff:\t0000000000000400\n",
			edit: func(s *container.Spec) {
				s.Process.DropCapabilities, s.Process.AddCapabilities = []string{"ALL"}, []string{"NET_BIND_SERVICE"}
			},
		},
		{
			name: "no new privileges", args: []string{"read", "/proc/self/status"}, want: "NoNewPrivs:\t1\n",
			edit: func(s *container.Spec) { s.Process.NoNewPrivileges = true },
		},
		{
			name: "host name", args: []string{"hostname"}, want: "pod-1\n",
			edit: func(s *container.Spec) { s.Hostname = "pod-1" },
		},
		{
			name: "privileged", args: []string{"write", "/proc/sys/kernel/hostname", "pod-2"},
			edit: func(s *container.Spec) { s.Privileged = true },
		},
	})
}

// anyFailure stands for every exit code but 0: that of a process that never became a program is the OCI runtime's choice.
const anyFailure = -1

// processTest runs the program until it ends.
type processTest struct {
	name string
	args []string
	edit func(s *container.Spec)
	// want is contained in the output.
	want     string
	wantCode int
}

func (h Harness) runAll(t *testing.T, tests []processTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := h.New(t)
			spec := h.spec(t, tt.args...)
			spec.UTSNS = namespace(t, "uts", syscall.CLONE_NEWUTS)
			if tt.edit != nil {
				tt.edit(&spec)
			}
			status, out := run(t, r, spec)
			failed := tt.wantCode == anyFailure && status.ExitCode != 0
			if status.ExitCode != tt.wantCode && !failed || status.Signal != 0 || status.OOMKilled {
				t.Errorf("got %+v, want exit code %d", status, tt.wantCode)
			}
			if !strings.Contains(out, tt.want) || tt.want == "" && out != "" {
				t.Errorf("got output %q, want %q", out, tt.want)
			}
		})
	}
}

func (h Harness) startErrors(t *testing.T) {
	t.Helper()
	tests := []struct {
		name string
		edit func(s *container.Spec)
		want container.StartError
	}{
		{
			name: "missing executable",
			edit: func(s *container.Spec) { s.Process.Args = []string{"/nope"} },
			want: container.StartError{ExitCode: 127, Message: `exec: "/nope": stat /nope: no such file or directory`},
		},
		{
			name: "missing in the path",
			edit: func(s *container.Spec) { s.Process.Args = []string{"nope"} },
			want: container.StartError{ExitCode: 127, Message: `exec: "nope": executable file not found in $PATH`},
		},
		{
			name: "not executable",
			edit: func(s *container.Spec) {
				s.Process.Args = []string{"/etc/text"}
				s.Mounts = []container.Mount{{Source: textFile(t), Destination: "/etc/text"}}
			},
			want: container.StartError{ExitCode: 126, Message: `exec: "/etc/text": permission denied`},
		},
		{
			name: "a folder",
			edit: func(s *container.Spec) { s.Process.Args = []string{"/proc"} },
			want: container.StartError{ExitCode: 126, Message: `exec: "/proc": permission denied`},
		},
		{
			name: "missing mount source",
			edit: func(s *container.Spec) { s.Mounts = []container.Mount{{Source: "/nonexistent", Destination: "/data"}} },
			want: container.StartError{ExitCode: 128, Message: `mounting "/nonexistent" to "/data": no such file or directory`},
		},
		{
			name: "unknown user",
			edit: func(s *container.Spec) { s.Process.User = "nobody-knows" },
			want: container.StartError{ExitCode: 128, Message: "unable to find user nobody-knows: no matching entries in passwd file"},
		},
		{
			name: "unknown group",
			edit: func(s *container.Spec) { s.Process.User = "1:nobody-knows" },
			want: container.StartError{ExitCode: 128, Message: "unable to find group nobody-knows: no matching entries in group file"},
		},
		{
			name: "unknown capability",
			edit: func(s *container.Spec) { s.Process.AddCapabilities = []string{"FLY"} },
			want: container.StartError{ExitCode: 128, Message: `unknown capability "FLY"`},
		},
		{
			name: "no command",
			edit: func(s *container.Spec) { s.Process.Args = nil },
			want: container.StartError{ExitCode: 128, Message: "no command specified"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := h.New(t)
			spec := h.spec(t, "exit", "0")
			tt.edit(&spec)
			_, err := r.Start(ctx(t), spec)
			got := new(container.StartError)
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want a StartError", err)
			}
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if list, err := r.List(ctx(t)); err != nil || len(list) != 0 {
				t.Errorf("left behind: %v, %v", list, err)
			}
			// The id is free again.
			if status, _ := run(t, r, h.spec(t, "exit", "3")); status.ExitCode != 3 {
				t.Errorf("second start: got %+v", status)
			}
		})
	}
}

func textFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (h Harness) signals(t *testing.T) {
	t.Helper()
	t.Run("handled", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		spec := h.start(t, r, "wait", "5")
		eventually(t, "handler", func() bool { return output(t, spec.LogPath) == "ready\n" })
		kill(t, r, syscall.SIGTERM)
		if s := wait(t, r, "a"); s.ExitCode != 5 || s.Signal != 0 {
			t.Errorf("got %+v, want exit code 5", s)
		}
	})
	t.Run("several waiters", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		h.start(t, r, "wait", "5")
		codes := make(chan int)
		for range 3 {
			go func() {
				s, err := r.Wait(ctx(t), "a")
				if err != nil {
					t.Error(err)
				}
				codes <- s.ExitCode
			}()
		}
		kill(t, r, syscall.SIGKILL)
		for range 3 {
			if code := <-codes; code != 137 {
				t.Errorf("got exit code %d, want 137", code)
			}
		}
	})
}

func (h Harness) mounts(t *testing.T) {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name         string
		args         []string
		mounts       []container.Mount
		readOnlyRoot bool
		want         string
		wantCode     int
	}{
		{
			name: "folder", args: []string{"read", "/data/file"}, want: "content",
			mounts: []container.Mount{{Source: folder, Destination: "/data"}},
		},
		{
			name: "single file", args: []string{"read", "/etc/some/file"}, want: "content",
			mounts: []container.Mount{{Source: filepath.Join(folder, "file"), Destination: "/etc/some/file"}},
		},
		{
			name: "read-only", args: []string{"write", "/data/new", "x"}, want: "read-only file system", wantCode: 1,
			mounts: []container.Mount{{Source: folder, Destination: "/data", ReadOnly: true}},
		},
		{
			name: "nested, given in the wrong order", args: []string{"read", "/a/b/file"}, want: "content",
			mounts: []container.Mount{{Source: folder, Destination: "/a/b"}, {Destination: "/a"}},
		},
		{
			name: "tmpfs with a limit", args: []string{"write", "/data/new", strings.Repeat("x", 8192)}, want: "no space left", wantCode: 1,
			mounts: []container.Mount{{Destination: "/data", SizeBytes: 4096}},
		},
		{
			name: "in place of a default", args: []string{"read", "/dev/shm/file"}, want: "content",
			mounts: []container.Mount{{Source: folder, Destination: "/dev/shm"}},
		},
		{name: "writable root", args: []string{"write", "/new", "x"}},
		{name: "read-only root", args: []string{"write", "/new", "x"}, readOnlyRoot: true, want: "read-only file system", wantCode: 1},
		{name: "proc", args: []string{"read", "/proc/1/comm"}, want: "program\n"},
		{name: "read-only proc", args: []string{"write", "/proc/sys/kernel/hostname", "x"}, want: "read-only file system", wantCode: 1},
		{name: "read-only sys", args: []string{"write", "/sys/kernel/mm/ksm/run", "0"}, want: "read-only file system", wantCode: 1},
		{name: "null", args: []string{"write", "/dev/null", "x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			spec := h.spec(t, tt.args...)
			spec.Mounts, spec.ReadOnlyRoot = tt.mounts, tt.readOnlyRoot
			status, out := run(t, h.New(t), spec)
			if status.ExitCode != tt.wantCode || !strings.Contains(out, tt.want) {
				t.Errorf("got code %d and output %q, want %d and %q", status.ExitCode, out, tt.wantCode, tt.want)
			}
		})
	}
}
