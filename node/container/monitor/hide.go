package monitor

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// withoutMount calls fn on a thread for which, and for the processes it starts, one mount of the machine is not there. It is for a
// runtime that refuses to work because of the mount. A path that is no mount changes nothing.
func withoutMount(path string, fn func() error) error {
	runtime.LockOSThread()
	origin, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening mount namespace: %w", err)
	}
	defer func() { _ = unix.Close(origin) }()
	// The working directory has to be the thread's own before its mount namespace can be.
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making mount namespace: %w", err)
	}
	// Slave: unmounting here must not unmount there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separating mount namespace: %w", err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hiding %q: %w", path, err)
	}
	err = fn()
	wd, wdErr := unix.Getwd()
	if back := errors.Join(wdErr, unix.Setns(origin, unix.CLONE_NEWNS), unix.Chdir(wd)); back != nil {
		// The thread stays locked, so that it is used for nothing else.
		return errors.Join(err, fmt.Errorf("returning to mount namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
