package settings

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// LockedError says that another weft has the state directory, or the name.
type LockedError struct {
	// PID of the other weft.
	PID int
	// What it holds, for the message.
	What string
	// ByName says that it holds the name with another state directory.
	ByName bool
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("weft is already running with %s (pid %d)", e.What, e.PID)
}

// Lock is held by a running weft and let go by the kernel when it dies.
type Lock struct {
	file *os.File
	name net.Listener
}

// Acquire takes the state directory and the instance's name, or fails with a *LockedError.
func (s Settings) Acquire(ctx context.Context) (*Lock, error) {
	file, err := os.OpenFile(s.lockPath(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	// A lock of the open file, not of the process: unlike flock it can be asked for without being taken.
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, wholeFile()); err != nil {
		defer func() { _ = file.Close() }()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, &LockedError{PID: readPID(file), What: "state directory " + s.StateDir}
		}
		return nil, fmt.Errorf("locking %q: %w", s.lockPath(), err)
	}
	// An abstract socket lives in the network namespace, as bridge and firewall table do, and leaves nothing behind.
	name, err := (&net.ListenConfig{}).Listen(ctx, "unix", "@weft/"+s.Name)
	if err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, &LockedError{PID: peerPID(ctx, "@weft/"+s.Name), What: "the name " + strconv.Quote(s.Name), ByName: true}
		}
		return nil, fmt.Errorf("taking the name %q: %w", s.Name, err)
	}
	if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("writing lock: %w", err), file.Close(), name.Close())
	}
	return &Lock{file: file, name: name}, nil
}

// Release lets others run.
func (l *Lock) Release() error {
	return errors.Join(l.name.Close(), l.file.Close())
}

// Owner is the pid of the weft that holds the state directory, or zero.
func (s Settings) Owner() (int, error) {
	file, err := os.Open(s.lockPath())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("opening lock: %w", err)
	}
	defer func() { _ = file.Close() }()
	lock := wholeFile()
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, lock); err != nil {
		return 0, fmt.Errorf("looking at lock %q: %w", s.lockPath(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return readPID(file), nil
}

func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} }

func (s Settings) lockPath() string { return s.Path("weft.lock") }

func readPID(file *os.File) int {
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// peerPID asks the kernel who listens on a unix socket.
func peerPID(ctx context.Context, name string) int {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", name)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if credentials, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(credentials.Pid)
		}
	})
	return pid
}
