package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestBuildEnv(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		spec Spec
		want []string
	}{
		{name: "defaults", want: []string{"PATH=" + defaultPath, "HOME=/h"}},
		{
			name: "terminal and host name", spec: Spec{Hostname: "pod", UTSNS: "/ns", Process: Process{TTY: true}},
			want: []string{"PATH=" + defaultPath, "HOME=/h", "TERM=xterm", "HOSTNAME=pod"},
		},
		{name: "host name of the machine", spec: Spec{Hostname: "pod"}, want: []string{"PATH=" + defaultPath, "HOME=/h"}},
		{
			name: "overridden", spec: Spec{Process: Process{Env: []string{"A=1", "HOME=/x", "PATH=/bin", "A=2", "B"}}},
			want: []string{"HOME=/x", "PATH=/bin", "A=2", "B"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, buildEnv(tt.spec, "/h")); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	held := heldCapabilities()
	defaults := slices.Sorted(slices.Values(defaultCapabilities()))
	all := slices.Sorted(slices.Values(held))
	without := func(set []string, name string) []string {
		return slices.DeleteFunc(slices.Clone(set), func(c string) bool { return c == name })
	}
	tests := []struct {
		name      string
		add, drop []string
		want      []string
	}{
		{name: "default", want: defaults},
		{name: "add", add: []string{"net_admin"}, want: slices.Sorted(slices.Values(append(slices.Clone(defaults), "CAP_NET_ADMIN")))},
		{name: "drop", drop: []string{"CAP_CHOWN"}, want: without(defaults, "CAP_CHOWN")},
		{name: "drop all", drop: []string{"ALL"}},
		{name: "drop all, add one", drop: []string{"ALL"}, add: []string{"CHOWN"}, want: []string{"CAP_CHOWN"}},
		{name: "add all", add: []string{"ALL"}, want: all},
		{name: "add all, drop one", add: []string{"ALL"}, drop: []string{"CHOWN"}, want: without(all, "CAP_CHOWN")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := capabilities(Process{AddCapabilities: tt.add, DropCapabilities: tt.drop}, false)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestStartErrorOfRuntimes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, message string
		want          StartError
	}{
		{
			name: "crun, absolute", message: "executable file `/nope` not found in $PATH: No such file or directory",
			want: StartError{ExitCode: 127, Message: `exec: "/nope": stat /nope: no such file or directory`},
		},
		{
			name:    "runc, absolute",
			message: `runc create failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory`,
			want:    StartError{ExitCode: 127, Message: `exec: "/nope": stat /nope: no such file or directory`},
		},
		{
			name:    "runc, in the path",
			message: `runc create failed: unable to start container process: exec: "/nope": executable file not found in $PATH`,
			want:    StartError{ExitCode: 127, Message: `exec: "/nope": executable file not found in $PATH`},
		},
		{
			name: "runc, permission", message: `unable to start container process: exec: "/nope": permission denied`,
			want: StartError{ExitCode: 126, Message: `exec: "/nope": permission denied`},
		},
		{name: "crun, permission", message: "open executable: Permission denied", want: StartError{ExitCode: 126, Message: `exec: "/nope": permission denied`}},
		{name: "other", message: "something else\n", want: StartError{ExitCode: 128, Message: "something else"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, *startError([]string{"/nope"}, tt.message)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMountOverlay has more layers than their names would fit in the options of a mount, which end after 4096 bytes.
func TestMountOverlay(t *testing.T) {
	t.Parallel()
	mounts := map[string]func(string, []string) error{"one at a time": mountOverlay, "in one option": mountOverlayLegacy}
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			var layers []string
			for n := range 120 {
				layer := filepath.Join(base, fmt.Sprintf("layer-%03d:%s", n, strings.Repeat("x", 40)))
				layers = append(layers, layer)
				if err := os.MkdirAll(layer, 0o755); err != nil {
					t.Fatal(err)
				}
				for _, file := range []string{"shared", "own" + itoa(n)} {
					if err := os.WriteFile(filepath.Join(layer, file), []byte(itoa(n)), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, folder := range []string{rootFolder, upperFolder, workFolder} {
				if err := os.Mkdir(filepath.Join(base, folder), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := mount(base, layers); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unmountRoot(base); err != nil {
					t.Error(err)
				}
				var st unix.Statfs_t
				if err := unix.Statfs(filepath.Join(base, rootFolder), &st); err != nil || st.Type == unix.OVERLAYFS_SUPER_MAGIC {
					t.Errorf("still mounted: %v", err)
				}
			}()
			for file, want := range map[string]string{"shared": "119", "own0": "0", "own64": "64"} {
				if got, err := os.ReadFile(filepath.Join(base, rootFolder, file)); err != nil || string(got) != want {
					t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
				}
			}
		})
	}
}

// TestFavorChanges runs on any machine, because version 2 is there besides version 1 in a hybrid.
func TestFavorChanges(t *testing.T) {
	t.Parallel()
	mount := cgroupMount
	if c, err := detectCgroups(instance.Default()); err != nil {
		t.Fatal(err)
	} else if !c.v2 {
		if err := c.favorChanges(); err != nil {
			t.Error(err)
		}
		mount = filepath.Join(cgroupMount, "unified")
	}
	before, err := superOptions(mount)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reconfigure(mount, before); err != nil {
			t.Error(err)
		}
	})
	if err := favorMounted(mount); err != nil {
		t.Fatal(err)
	}
	after, err := superOptions(mount)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(before), favorDynmods))))
	if got := slices.Sorted(slices.Values(after)); !slices.Equal(got, want) {
		t.Errorf("options: got %v, want %v", got, want)
	}
}
