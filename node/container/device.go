package container

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// buildDevices lists the machine's devices for a privileged container. Others get those that every OCI runtime makes by itself.
func buildDevices(privileged bool) ([]specs.LinuxDevice, error) {
	if !privileged {
		return nil, nil
	}
	// Folders that a container has its own of, and files that it gets its own of.
	skip := []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev", "/dev/console"}
	var devices []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // unplugged meanwhile
		case err != nil:
			return err
		case slices.Contains(skip, path) && entry.IsDir():
			return filepath.SkipDir
		case slices.Contains(skip, path) || entry.Type()&fs.ModeDevice == 0:
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil { // else unplugged meanwhile
			devices = append(devices, device(path, &st))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing devices: %w", err)
	}
	return devices, nil
}

func device(path string, st *unix.Stat_t) specs.LinuxDevice {
	kind := "c"
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		kind = "b"
	}
	mode := fs.FileMode(st.Mode & 0o777)
	return specs.LinuxDevice{
		Path: path, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	}
}
