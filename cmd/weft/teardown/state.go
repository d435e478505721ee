package teardown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// entries are what weft makes in its state directory. Nothing else is removed: somebody may have named a directory of their own.
func entries() []string {
	return []string{
		"containers", "etcd", "images", "logs", "namespaces", "pki", "pods", "run", "sandboxes",
		"instance.json", "instance.json.new", "kubeconfig", "kubeconfig.new", "weft.lock",
	}
}

// removeState removes weft's entries of a state directory, and the directory when that leaves it empty.
func removeState(dir string) error {
	var errs []error
	for _, name := range entries() {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing state: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("removing state directory: %w", err)
	}
	return nil
}

// unmountBelow unmounts everything below dir, the last mounted first.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %q: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// mountsBelow lists mount points in the order of mounting.
func mountsBelow(dir string) ([]string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resolving state directory: %w", err)
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	// The kernel writes blanks and backslashes of paths in octal.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	const pointField = 4
	var points []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) <= pointField {
			continue
		}
		if point := unescape.Replace(fields[pointField]); strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points, nil
}

// removeCgroups removes a cgroup with its children from every hierarchy. A cgroup directory goes by rmdir alone, from the leaves up.
func removeCgroups(path string) error {
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*" + path)
	if err != nil {
		return fmt.Errorf("finding cgroups: %w", err)
	}
	var errs []error
	for _, root := range append(hierarchies, "/sys/fs/cgroup"+path) {
		errs = append(errs, removeCgroup(root))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	children, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading cgroup: %w", err)
	}
	for _, child := range children {
		if child.IsDir() {
			if err := removeCgroup(filepath.Join(dir, child.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing cgroup %q: %w", dir, err)
	}
	return nil
}
