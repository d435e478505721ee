package teardown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func makeTree(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRemoveState(t *testing.T) {
	t.Parallel()
	ours := []string{"etcd/member/wal/0.wal", "pki/ca.key", "images/layers/x/file", "instance.json", "kubeconfig", "weft.lock", "logs/weft.log"}
	tests := []struct {
		name  string
		files []string
		// left is what remains in the directory; nil means that the directory is gone.
		left []string
	}{
		{name: "only ours", files: ours},
		{name: "nothing"},
		{name: "somebody else's", files: append([]string{"thesis.txt", "photos/1.jpg"}, ours...), left: []string{"photos", "thesis.txt"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			makeTree(t, dir, test.files...)
			if err := removeState(dir); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if test.left == nil {
				if !errors.Is(err, os.ErrNotExist) {
					t.Errorf("directory is left, with %v", entries)
				}
				return
			}
			var left []string
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if diff := cmp.Diff(test.left, left); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRemoveStateThatIsNotThere(t *testing.T) {
	t.Parallel()
	if err := removeState(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
}

// TestUnmountBelow nests mounts, with a blank in a name, and keeps the one beside the directory.
func TestUnmountBelow(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "state")
	points := []string{filepath.Join(dir, "a b"), filepath.Join(dir, "a b", "inner"), filepath.Join(root, "state-of-others")}
	for _, point := range points {
		if err := os.MkdirAll(point, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
	}
	if err := unmountBelow(dir); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, false, true} {
		mounted, err := mountsBelow(filepath.Dir(points[i]))
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(mounted, points[i]); got != want {
			t.Errorf("%q is mounted: %t, want %t", points[i], got, want)
		}
	}
}

func TestRemoveCgroups(t *testing.T) {
	t.Parallel()
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	roots := []string{"/sys/fs/cgroup"}
	if len(hierarchies) > 0 {
		roots = roots[:0]
		for _, h := range hierarchies {
			roots = append(roots, filepath.Dir(h))
		}
	}
	name := fmt.Sprintf("/tdown%d", os.Getpid())
	made := 0
	for _, root := range roots {
		// Not every hierarchy allows children everywhere, cpuset for one in some containers.
		if os.MkdirAll(filepath.Join(root, name, "pod1", "container"), 0o755) == nil {
			made++
		}
	}
	if made == 0 {
		t.Fatal("no cgroup could be made")
	}
	if err := removeCgroups(name); err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		if _, err := os.Stat(filepath.Join(root, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", filepath.Join(root, name), err)
		}
	}
}
