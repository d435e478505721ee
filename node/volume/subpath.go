package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// SubPath binds a path inside a volume to a place that no container can change, and returns that place. A container that writes to
// the volume could otherwise replace a directory by a link out of it between the check and the mount. A missing path becomes
// a directory. index tells the mounts of a container apart.
func (s *Set) SubPath(volumePath, sub, container string, index int) (string, error) {
	root, err := os.OpenRoot(volumePath)
	if err != nil {
		return "", fmt.Errorf("opening the volume: %w", err)
	}
	defer root.Close() //nolint:errcheck // read only
	if _, err := root.Stat(sub); errors.Is(err, fs.ErrNotExist) {
		if err := root.MkdirAll(sub, 0o755); err != nil {
			return "", fmt.Errorf("making subPath %q: %w", sub, err)
		}
	}
	f, err := root.Open(sub)
	if err != nil {
		return "", fmt.Errorf("opening subPath %q: %w", sub, err)
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("reading subPath %q: %w", sub, err)
	}
	target := filepath.Join(s.options.Dir, "..subpaths", container, strconv.Itoa(index))
	if err := replaceTarget(target, info.IsDir()); err != nil {
		return "", err
	}
	source := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("binding subPath %q: %w", sub, err)
	}
	return target, nil
}

// replaceTarget makes an empty directory or file to mount on, removing the mount of an earlier attempt of the container.
func replaceTarget(target string, dir bool) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
		!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting an old subPath: %w", err)
	}
	if err := os.RemoveAll(target); err != nil {
		return fmt.Errorf("removing an old subPath: %w", err)
	}
	if dir {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return fmt.Errorf("making the target of a subPath: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return fmt.Errorf("making the target of a subPath: %w", err)
	}
	return touch(target)
}
