package monitor

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// execute runs a process in a running container. The process ends with the interest in it: when the socket closes, it is killed.
func (p *process) execute(socket int, files []int) error {
	var terminal *os.File
	var err error
	switch {
	case p.job.TTY:
		terminal, err = p.startWithTerminal("exec")
	case len(files) == 3:
		err = p.start("exec", [3]int(files))
	default:
		err = fmt.Errorf("got %d standard files, want 3", len(files))
	}
	for _, fd := range files {
		_ = unix.Close(fd)
	}
	if err != nil {
		return send(socket, Reply{Error: err.Error()})
	}
	var pass []int
	if terminal != nil {
		pass = append(pass, int(terminal.Fd()))
	}
	if err := send(socket, Reply{State: p.state}, pass...); err != nil {
		return errors.Join(err, syscall.Kill(p.state.Process.PID, syscall.SIGKILL))
	}
	if terminal != nil {
		_ = terminal.Close()
	}
	// pidfd, because the process may have been reaped when the socket closes.
	if pidfd, err := unix.PidfdOpen(p.state.Process.PID, 0); err == nil {
		go func() {
			_, _ = receive(socket, &struct{}{}) // nothing but the end comes
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		}()
	}
	if err := p.wait(); err != nil {
		return err
	}
	return send(socket, Reply{State: p.state})
}
