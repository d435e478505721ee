package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// terminalStderr returns standard error by a descriptor of its own, which silenceLibraries does not touch.
func terminalStderr() *os.File {
	fd, err := unix.FcntlInt(os.Stderr.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.Stderr
	}
	return os.NewFile(uintptr(fd), os.Stderr.Name())
}

// silenceLibraries sends what is written to descriptor 2 into a log file: etcd's client holds a logger on it that cannot be
// configured, and tells of every request that the end of the platform interrupts. A crash is still reported on the terminal.
func silenceLibraries(log, terminal *os.File) error {
	if err := unix.Dup3(int(log.Fd()), int(os.Stderr.Fd()), 0); err != nil {
		return fmt.Errorf("redirecting standard error: %w", err)
	}
	if err := debug.SetCrashOutput(terminal, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("directing crashes to the terminal: %w", err)
	}
	return nil
}
