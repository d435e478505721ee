package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drain is how long output is still read after the container has ended. Its processes are gone then; what may keep the pipe open
// is only a process elsewhere that was given the file.
const drain = 2 * time.Second

// Run waits for a job on the socket, does it and returns when its process has ended. A socket that closes before is no error: the
// monitor was idle and nobody needs it any more.
func Run(socket int) error {
	unix.CloseOnExec(socket)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	self, err := Identify(os.Getpid())
	if err != nil {
		return err
	}
	var job Job
	files, err := receive(socket, &job)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Chdir(job.Dir); err != nil {
		return send(socket, Reply{Error: err.Error()})
	}
	if err := redirectErrors(); err != nil {
		return send(socket, Reply{Error: err.Error()})
	}
	p := &process{job: job, self: self}
	if job.Exec {
		return p.execute(socket, files)
	}
	return p.run(socket)
}

// redirectErrors sends what this process says on its standard error, a panic above all, to a file that goes with the container.
func redirectErrors() error {
	fd, err := unix.Open(monitorLog, unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("opening %s: %w", monitorLog, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Dup3(fd, int(os.Stderr.Fd()), 0); err != nil {
		return fmt.Errorf("redirecting errors: %w", err)
	}
	return nil
}

// process is the one that a monitor is for.
type process struct {
	job   Job
	self  ProcessID
	state State
}

// run starts the container, logs its output and records its end.
func (p *process) run(socket int) error {
	logs, err := openLog(p.job.Log)
	if err != nil {
		return send(socket, Reply{Error: err.Error()})
	}
	out, err := p.startContainer()
	if err != nil {
		return send(socket, Reply{Error: err.Error()})
	}
	var copies sync.WaitGroup
	for stream, file := range out.streams {
		copies.Go(func() { logs.copy(stream, file) })
	}
	if err := WriteState(".", p.state); err != nil {
		return errors.Join(err, p.abandon(socket, err))
	}
	if err := send(socket, Reply{State: p.state}); err != nil {
		return err
	}
	_ = unix.Close(socket)
	if err := p.wait(); err != nil {
		return err
	}
	p.state.OOMKilled = p.job.OOMEvents != "" && oomKilled(p.job.OOMEvents)
	time.AfterFunc(drain, out.close)
	copies.Wait()
	return errors.Join(logs.close(), WriteState(".", p.state))
}

// abandon kills a container whose existence could not be written down.
func (p *process) abandon(socket int, err error) error {
	return errors.Join(syscall.Kill(p.state.Process.PID, syscall.SIGKILL), p.wait(), send(socket, Reply{Error: err.Error()}))
}

// output is the monitor's side of a container's standard files.
type output struct {
	streams map[Stream]*os.File
	// stdin is held, never written to.
	stdin *os.File
}

func (o *output) close() {
	for _, f := range o.streams {
		_ = f.Close()
	}
}

// startContainer runs the OCI runtime, which leaves the container's process behind as a child of this one.
func (p *process) startContainer() (*output, error) {
	o := &output{streams: map[Stream]*os.File{}}
	if p.job.TTY {
		terminal, err := p.startWithTerminal("run")
		if err != nil {
			return nil, err
		}
		// The terminal's end is also its input: holding it keeps that open.
		o.streams[Stdout] = terminal
		return o, nil
	}
	var files [3]int
	var err error
	if files[0], o.stdin, err = p.openStdin(); err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(files[0]) }()
	for i, stream := range []Stream{Stdout, Stderr} {
		read, write, err := pipe()
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(write) }()
		files[i+1], o.streams[stream] = write, read
	}
	return o, p.start("run", files)
}

// openStdin returns the file for the process's standard input, and what keeps it open.
func (p *process) openStdin() (int, *os.File, error) {
	if p.job.Stdin {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return -1, nil, fmt.Errorf("making pipe: %w", err)
		}
		return fds[0], os.NewFile(uintptr(fds[1]), "stdin"), nil
	}
	fd, err := openNull()
	return fd, nil, err
}

func openNull() (int, error) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	return fd, nil
}

// pipe returns a pipe whose reading end is watched by Go's poller and whose writing end is a blocking file, as programs expect
// of their standard output.
func pipe() (*os.File, int, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("making pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, -1, fmt.Errorf("setting pipe to non-blocking: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), fds[1], nil
}

// startWithTerminal starts the process with a terminal and returns its other end.
func (p *process) startWithTerminal(command string) (*os.File, error) {
	c, err := listenConsole()
	if err != nil {
		return nil, err
	}
	defer c.close()
	null, err := openNull()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(null) }()
	if err := p.start(command, [3]int{null, null, null}, "--console-socket", consoleFile); err != nil {
		return nil, err
	}
	fd, err := c.terminal()
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, syscall.Kill(p.state.Process.PID, syscall.SIGKILL), p.wait())
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// start runs the OCI runtime in its detached form and learns which process it left.
func (p *process) start(command string, stdio [3]int, args ...string) error {
	argv := []string{p.job.Runtime, "--root", p.job.Root, "--log", runtimeLog, "--log-format", "json", command, "--detach", "--pid-file", pidFile}
	if p.job.Exec {
		argv = append(argv, "--process", ProcessFile)
	}
	argv = append(append(argv, args...), p.job.ID)
	files := []uintptr{uintptr(stdio[0]), uintptr(stdio[1]), uintptr(stdio[2])}
	runtime := 0
	fork := func() (err error) {
		runtime, err = syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Env: os.Environ(), Files: files})
		return err
	}
	var err error
	if p.job.Hide != "" {
		err = withoutMount(p.job.Hide, fork)
	} else {
		err = fork()
	}
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.job.Runtime, err)
	}
	var status syscall.WaitStatus
	for {
		_, err = syscall.Wait4(runtime, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", p.job.Runtime, err)
	}
	if status.ExitStatus() != 0 {
		return runtimeError(status)
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return fmt.Errorf("reading pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("parsing pid: %w", err)
	}
	p.state = State{Monitor: p.self, Process: p.identify(pid), StartedAt: time.Now()}
	return nil
}

// identify never fails: a process that has ended already has no identity left to find out, and needs none.
func (p *process) identify(pid int) ProcessID {
	id, err := Identify(pid)
	if err != nil {
		return ProcessID{PID: pid, Boot: p.self.Boot}
	}
	return id
}

// wait reaps children until the process has ended.
func (p *process) wait() error {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for process %d: %w", p.state.Process.PID, err)
		}
		if pid != p.state.Process.PID {
			continue
		}
		p.state.FinishedAt = time.Now()
		p.state.ExitCode = status.ExitStatus()
		if status.Signaled() {
			p.state.Signal = int(status.Signal())
			p.state.ExitCode = 128 + p.state.Signal
		}
		return nil
	}
}
