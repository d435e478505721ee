package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// wait returns when a process, a child or not, has ended, or with an error when ctx has. It waits on a pidfd through the runtime's
// poller: no thread is held and nothing is polled in steps.
func wait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("watching process %d: %w", pid, err)
	}
	stop := context.AfterFunc(ctx, func() {
		// Fails only on a closed file, which means that wait has returned.
		_ = f.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	if err := raw.Read(func(fd uintptr) bool { return ended(int(fd)) }); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("watching process %d: %w", pid, err)
	}
	return nil
}

// ended reports whether a pidfd is readable, which it becomes when its process ends.
func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}
