package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/node/container/monitor"
)

// killedCode is the exit code of a process of which only the end is known.
const killedCode = 128 + int(unix.SIGKILL)

// Status implements Runtime.
func (r *OCI) Status(_ context.Context, id string) (Status, error) {
	dir, err := r.existing(id)
	if err != nil {
		return Status{}, err
	}
	return readStatus(dir)
}

// readStatus tells the state of a container from its monitor's file and from which processes are alive.
func readStatus(dir string) (Status, error) {
	s, err := monitor.ReadState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{State: StateUnknown}, nil // weft ended in the middle of Start
	}
	if err != nil {
		return Status{}, err
	}
	switch {
	case s.Stopped():
		return statusOf(s, StateStopped), nil
	case s.Monitor.Alive() || s.Process.Alive():
		return statusOf(s, StateRunning), nil
	}
	// The monitor writes before it ends, and may just have done so.
	if s, err = monitor.ReadState(dir); err != nil {
		return Status{}, err
	}
	if s.Stopped() {
		return statusOf(s, StateStopped), nil
	}
	return statusOf(s, StateUnknown), nil
}

func statusOf(s monitor.State, state State) Status {
	return Status{
		State: state, PID: s.Process.PID, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Signal: s.Signal, OOMKilled: s.OOMKilled,
	}
}

// Wait implements Runtime.
func (r *OCI) Wait(ctx context.Context, id string) (Status, error) {
	dir, err := r.existing(id)
	if err != nil {
		return Status{}, err
	}
	for {
		status, err := readStatus(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return Status{}, fmt.Errorf("container %q was deleted: %w", id, ErrNotFound)
		}
		if err != nil || status.State != StateRunning {
			return status, err
		}
		if err := waitStep(ctx, dir); err != nil {
			return Status{}, err
		}
	}
}

// waitStep waits for the end of the monitor or, if that is gone, for the end of the container's process, which it then writes down
// in the monitor's place. The exit code is lost with the monitor that was the process's parent.
func waitStep(ctx context.Context, dir string) error {
	s, err := monitor.ReadState(dir)
	if err != nil || s.Stopped() {
		return err
	}
	watched, err := waitProcess(ctx, s.Monitor)
	if watched || err != nil {
		return err
	}
	if watched, err = waitProcess(ctx, s.Process); err != nil || !watched {
		return err
	}
	if s.Monitor.Alive() {
		return nil
	}
	s.FinishedAt, s.ExitCode, s.Signal = time.Now(), killedCode, 0
	return monitor.WriteState(dir, s)
}

// waitProcess blocks until a process has ended. It returns false at once if there is no such process.
func waitProcess(ctx context.Context, p monitor.ProcessID) (bool, error) {
	fd, ok, err := openProcess(p)
	if !ok || err != nil {
		return false, err
	}
	// A non-blocking pidfd is what Go's poller takes: it becomes readable when the process ends.
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("watching process %d: %w", p.PID, err)
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return false, fmt.Errorf("watching process %d: %w", p.PID, err)
	}
	return true, nil
}

// openProcess returns a non-blocking pidfd of the process if it is alive.
func openProcess(p monitor.ProcessID) (fd int, ok bool, err error) {
	if p.PID <= 0 {
		return -1, false, nil
	}
	fd, err = unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, fmt.Errorf("opening process %d: %w", p.PID, err)
	}
	// Only now: the number cannot be given to another process between this check and the use of the file.
	if !p.Alive() {
		return -1, false, unix.Close(fd)
	}
	return fd, true, nil
}

// Kill implements Runtime.
func (r *OCI) Kill(_ context.Context, id string, signal int) error {
	dir, err := r.existing(id)
	if err != nil {
		return err
	}
	s, err := monitor.ReadState(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && s.Stopped() {
		return nil
	}
	if err != nil {
		return err
	}
	fd, ok, err := openProcess(s.Process)
	if !ok || err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, unix.Signal(signal), nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending signal %d to container %q: %w", signal, id, err)
	}
	return nil
}

// List implements Runtime.
func (r *OCI) List(context.Context) ([]Info, error) {
	entries, err := os.ReadDir(r.dir(""))
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		dir := r.dir(e.Name())
		rec, err := readRecord(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // being started or deleted
		}
		if err != nil {
			return nil, err
		}
		status, err := readStatus(dir)
		if err != nil {
			return nil, fmt.Errorf("listing container %q: %w", rec.ID, err)
		}
		infos = append(infos, Info{ID: rec.ID, Labels: rec.Labels, LogPath: rec.LogPath, Status: status})
	}
	return infos, nil
}
