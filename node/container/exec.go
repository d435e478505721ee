package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/node/container/monitor"
)

// outputGrace is how long Exec still reads output after its process has ended, when a process that it left in the background
// keeps the output open.
const outputGrace = 500 * time.Millisecond

// Exec implements Runtime.
func (r *OCI) Exec(ctx context.Context, id string, opts ExecOptions) (int, error) {
	dir, err := r.existing(id)
	if err != nil {
		return 0, err
	}
	status, err := readStatus(dir)
	if err != nil {
		return 0, err
	}
	if status.State != StateRunning {
		return 0, fmt.Errorf("executing in container %q: it is %s", id, status.State)
	}
	work, err := r.prepareExec(dir, opts)
	if err != nil {
		return 0, fmt.Errorf("executing in container %q: %w", id, err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	job := monitor.Job{Runtime: r.binary, Root: r.root(), ID: id, Dir: work, Exec: true, TTY: opts.TTY}
	if opts.TTY {
		return r.execTTY(ctx, job, opts)
	}
	return r.execPipes(ctx, job, opts)
}

// prepareExec makes the directory of one execution with the process in it: the container's own with another command.
func (r *OCI) prepareExec(dir string, opts ExecOptions) (string, error) {
	if len(opts.Args) == 0 {
		return "", &StartError{ExitCode: codeOther, Message: "no command specified"}
	}
	process, err := readProcess(dir)
	if err != nil {
		return "", err
	}
	process.Args, process.Terminal = opts.Args, opts.TTY
	if opts.TTY && !hasVariable(process.Env, "TERM") {
		process.Env = append(process.Env, "TERM=xterm")
	}
	work, err := os.MkdirTemp(dir, execPattern)
	if err != nil {
		return "", fmt.Errorf("making directory: %w", err)
	}
	if err := writeJSON(filepath.Join(work, monitor.ProcessFile), process); err != nil {
		return "", errors.Join(err, os.RemoveAll(work))
	}
	return work, nil
}

func hasVariable(env []string, name string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}

// execTTY copies between the caller and the terminal.
func (r *OCI) execTTY(ctx context.Context, job monitor.Job, opts ExecOptions) (int, error) {
	c, err := r.monitors.begin(job)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	reply, terminal, err := c.receive(ctx)
	if err != nil {
		return 0, err
	}
	if reply.Error != "" {
		return 0, startError(opts.Args, reply.Error)
	}
	defer func() { _ = terminal.Close() }()
	done := make(chan struct{})
	defer close(done)
	if opts.Resize != nil {
		go resize(terminal, opts.Resize, done)
	}
	if opts.Stdin != nil {
		// It ends with the terminal, or when the caller's input does: reading that cannot be interrupted from here.
		go func() { _, _ = io.Copy(terminal, opts.Stdin) }()
	}
	output := copyAll(opts.Stdout, terminal)
	return r.finish(ctx, c, terminal, output)
}

// execPipes copies between the caller and three pipes.
func (r *OCI) execPipes(ctx context.Context, job monitor.Job, opts ExecOptions) (int, error) {
	p, err := newPipes(opts)
	if err != nil {
		return 0, err
	}
	defer p.close()
	c, err := r.monitors.begin(job, p.theirs[:]...)
	p.closeTheirs()
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	reply, _, err := c.receive(ctx)
	if err != nil {
		return 0, err
	}
	if reply.Error != "" {
		return 0, startError(opts.Args, reply.Error)
	}
	if opts.Stdin != nil {
		go func() {
			_, _ = io.Copy(p.stdin, opts.Stdin)
			_ = p.stdin.Close() // the process sees the end of its input and goes on
		}()
	}
	copies := []<-chan struct{}{copyAll(opts.Stdout, p.stdout)}
	if opts.Stderr != nil {
		copies = append(copies, copyAll(opts.Stderr, p.stderr))
	}
	return r.finish(ctx, c, p, copies...)
}

// finish waits for the exit code and then for the rest of the output.
func (r *OCI) finish(ctx context.Context, c conn, output io.Closer, copies ...<-chan struct{}) (int, error) {
	reply, _, err := c.receive(ctx)
	if err != nil {
		return 0, fmt.Errorf("waiting for process: %w", err)
	}
	timer := time.AfterFunc(outputGrace, func() { _ = output.Close() })
	defer timer.Stop()
	for _, done := range copies {
		<-done
	}
	return reply.State.ExitCode, nil
}

// copyAll copies in the background and closes the channel at the end. A caller who takes no more output does not stop the process.
func copyAll(w io.Writer, r io.Reader) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(w, r); err != nil {
			_, _ = io.Copy(io.Discard, r)
		}
	}()
	return done
}

func resize(terminal *os.File, sizes <-chan Size, done <-chan struct{}) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			raw, err := terminal.SyscallConn()
			if err != nil {
				return
			}
			_ = raw.Control(func(fd uintptr) {
				_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			})
		case <-done:
			return
		}
	}
}

// pipes are the standard files of a process to execute and our ends of them.
type pipes struct {
	theirs                [3]*os.File
	stdin, stdout, stderr *os.File
}

func newPipes(opts ExecOptions) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.close()
		}
	}()
	if opts.Stdin != nil {
		p.theirs[0], p.stdin, err = os.Pipe()
	} else {
		p.theirs[0], err = os.Open(os.DevNull)
	}
	if err != nil {
		return p, err
	}
	if p.stdout, p.theirs[1], err = os.Pipe(); err != nil {
		return p, err
	}
	if opts.Stderr != nil {
		p.stderr, p.theirs[2], err = os.Pipe()
	} else {
		p.theirs[2], err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	return p, err
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Close ends our side.
func (p *pipes) Close() error {
	p.close()
	return nil
}
