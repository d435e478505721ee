package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// favorDynmods is the kernel's option for machines on which processes often move between cgroups.
const favorDynmods = "favordynmods"

// favorChanges tells the kernel (Linux 6.0 and later) that cgroups come and go on this machine. Without it the first process that
// moves into another cgroup after a pause waits for every processor to pass through the scheduler, 5 to 20 ms, which is up to half
// of a container's start. The price is a fraction of a microsecond at each fork and exit.
func (c cgroups) favorChanges() error {
	if c.v2 {
		return favorMounted(cgroupMount)
	}
	return favorByMounting()
}

// favorByMounting is for version 1, whose mounted hierarchies cannot be changed: a hierarchy without controllers is mounted with the
// option and unmounted again. What the option switches on is kept by the kernel from Linux 6.18 on, for all hierarchies.
func favorByMounting() error {
	dir, err := os.MkdirTemp("", "weft-cgroup-*")
	if err != nil {
		return fmt.Errorf("making a place to mount cgroups: %w", err)
	}
	defer func() { _ = os.Remove(dir) }()
	if err := unix.Mount("cgroup", dir, "cgroup", 0, "none,name=weft,"+favorDynmods); err != nil {
		return fmt.Errorf("mounting cgroups with %s: %w", favorDynmods, err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting cgroups: %w", err)
	}
	return nil
}

// favorMounted adds the option to those of the mounted version 2, which have to be repeated to be kept.
func favorMounted(path string) error {
	options, err := superOptions(path)
	if err != nil {
		return err
	}
	if slices.Contains(options, favorDynmods) {
		return nil
	}
	return reconfigure(path, append(options, favorDynmods))
}

// reconfigure gives the file system that is mounted at a path new options, all of them flags.
func reconfigure(path string, options []string) error {
	fsfd, err := unix.Fspick(unix.AT_FDCWD, path, unix.FSPICK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening cgroups: %w", err)
	}
	defer func() { _ = unix.Close(fsfd) }()
	for _, o := range options {
		if err := unix.FsconfigSetFlag(fsfd, o); err != nil {
			return fmt.Errorf("setting option %s of cgroups: %w", o, err)
		}
	}
	if err := unix.FsconfigReconfigure(fsfd); err != nil {
		return fmt.Errorf("changing options of cgroups: %w", err)
	}
	return nil
}

// superOptions returns the options of the file system that is mounted at a path.
func superOptions(path string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		// The fifth field is the mount point; the file system's options are the last.
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[4] == path {
			options := strings.Split(fields[len(fields)-1], ",")
			return slices.DeleteFunc(options, func(o string) bool { return o == "rw" || o == "ro" }), nil
		}
	}
	return nil, errors.New("reading mounts: no cgroups at " + path)
}
