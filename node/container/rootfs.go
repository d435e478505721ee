package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountRoot mounts the layers, base first, with a writable one on top as the container's root file system.
func mountRoot(dir string, layers []string) error {
	for _, name := range []string{rootFolder, upperFolder, workFolder} {
		// 0755: the upper folder's mode becomes that of the container's root.
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("making root file system: %w", err)
		}
	}
	if len(layers) == 0 {
		return errors.New("making root file system: no layers")
	}
	err := mountOverlay(dir, layers)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		err = mountOverlayLegacy(dir, layers)
	}
	if err != nil {
		return fmt.Errorf("mounting root file system: %w", err)
	}
	return nil
}

// mountOverlay gives the kernel one layer at a time, which needs Linux 6.5 and has no limit on the length of all paths together.
func mountOverlay(dir string, layers []string) error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening overlay: %w", err)
	}
	defer func() { _ = unix.Close(fsfd) }()
	type option struct{ key, value string }
	options := []option{{"source", "overlay"}}
	for _, layer := range slices.Backward(layers) {
		options = append(options, option{"lowerdir+", layer})
	}
	options = append(options, option{"upperdir", filepath.Join(dir, upperFolder)}, option{"workdir", filepath.Join(dir, workFolder)})
	for _, o := range options {
		if err := unix.FsconfigSetString(fsfd, o.key, o.value); err != nil {
			return fmt.Errorf("setting %s=%s: %w", o.key, o.value, err)
		}
	}
	// Nothing of a container's root file system outlives the machine's next start, so syncing it to disk would be in vain.
	if err := unix.FsconfigSetFlag(fsfd, "volatile"); err != nil {
		return fmt.Errorf("setting volatile: %w", err)
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("creating overlay: %w", err)
	}
	mount, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making overlay mount: %w", err)
	}
	defer func() { _ = unix.Close(mount) }()
	return unix.MoveMount(mount, "", unix.AT_FDCWD, filepath.Join(dir, rootFolder), unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// mountOverlayLegacy is for older kernels, whose mount options end after one page: layers are named by open files, which is short
// and needs no escaping.
func mountOverlayLegacy(dir string, layers []string) error {
	var lower []string
	for _, layer := range slices.Backward(layers) {
		fd, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening layer %q: %w", layer, err)
		}
		defer func() { _ = unix.Close(fd) }()
		lower = append(lower, "/proc/self/fd/"+strconv.Itoa(fd))
	}
	options := []string{"lowerdir=" + strings.Join(lower, ":")}
	for _, o := range []struct{ key, folder string }{{"upperdir", upperFolder}, {"workdir", workFolder}} {
		fd, err := unix.Open(filepath.Join(dir, o.folder), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", o.key, err)
		}
		defer func() { _ = unix.Close(fd) }()
		options = append(options, o.key+"=/proc/self/fd/"+strconv.Itoa(fd))
	}
	return unix.Mount("overlay", filepath.Join(dir, rootFolder), "overlay", 0, strings.Join(options, ","))
}

// unmountRoot undoes mountRoot. A root that is not mounted is no error.
func unmountRoot(dir string) error {
	err := unix.Unmount(filepath.Join(dir, rootFolder), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting root file system: %w", err)
	}
	return nil
}

// root is a container's root file system for look-ups from outside: symbolic links in it, which the image's author controls,
// are followed as the container would follow them.
type root struct{ fd int }

func openRoot(path string) (*root, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening root file system: %w", err)
	}
	return &root{fd: fd}, nil
}

func (r *root) close() { _ = unix.Close(r.fd) }

// open opens a file for reading.
func (r *root) open(path string) (*os.File, error) {
	fd, err := r.openat(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (r *root) openat(path string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(r.fd, path, how)
		// EAGAIN: something was renamed meanwhile, so that the kernel cannot be sure not to have left the root.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// mkdirAll makes a directory with its parents as root's, mode 0755.
func (r *root) mkdirAll(path string) error {
	fd, err := r.openat(path, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := r.mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	parent, err := r.openat(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(parent) }()
	if err := unix.Mkdirat(parent, filepath.Base(path), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}
