package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-dev/weft/cmd/weft/preflight"
	"github.com/weft-dev/weft/cmd/weft/settings"
)

// progressFD names, in the environment of a detached weft, the descriptor on which it reports progress to the command that
// started it.
const progressFD = "WEFT_PROGRESS_FD"

// Marks of lines on that descriptor that are not progress.
const (
	readyMark = "\x02ready"
	errorMark = "\x02error "
)

// logLimit is the size above which the log of a detached weft is put aside at its start.
const logLimit = 20 << 20

// detach starts `weft up` again in a session of its own and follows it until it is ready or has failed.
func detach(cmd *cobra.Command, s settings.Settings) error {
	if err := preflight.Privileges(); err != nil {
		return err
	}
	if err := preflight.StateDir(s.StateDir); err != nil {
		return err
	}
	log, err := openLog(s)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making pipe: %w", err)
	}
	defer func() { _ = reader.Close() }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding my own executable: %w", err)
	}
	// Not bound to a context: it is to outlive this process.
	child := exec.CommandContext(context.WithoutCancel(cmd.Context()), self, attachedArgs(os.Args[1:])...)
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{writer}
	const firstExtra = 3
	child.Env = append(os.Environ(), progressFD+"="+strconv.Itoa(firstExtra), stateDirEnv+"="+s.StateDir)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("starting weft in the background: %w", err)
	}
	_ = writer.Close() // The child has its own; this one would keep the reader waiting.
	return follow(reader, cmd.OutOrStdout(), log.Name())
}

// attachedArgs are the arguments without --detach.
func attachedArgs(args []string) []string {
	kept := make([]string, 0, len(args))
	for _, arg := range args {
		if arg != "-d" && arg != "--detach" && !strings.HasPrefix(arg, "--detach=") {
			kept = append(kept, arg)
		}
	}
	return kept
}

// follow prints progress until the other side is ready.
func follow(from io.Reader, to io.Writer, log string) error {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		line := lines.Text()
		if line == readyMark {
			return nil
		}
		if message, failed := strings.CutPrefix(line, errorMark); failed {
			return errors.New(message)
		}
		if _, err := fmt.Fprintln(to, line); err != nil {
			return fmt.Errorf("printing progress: %w", err)
		}
	}
	return fmt.Errorf("weft ended before it was ready, see %s", log)
}

// openLog opens what a detached weft writes to, and what libraries write to standard error.
func openLog(s settings.Settings) (*os.File, error) {
	path := s.Path("logs", "weft.log")
	if err := os.MkdirAll(s.Path("logs"), 0o700); err != nil {
		return nil, fmt.Errorf("making directory of logs: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("putting log aside: %w", err)
		}
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening log: %w", err)
	}
	return log, nil
}

// progress tells a user what happens, on the terminal or through the pipe of the command that detached this process.
type progress struct {
	// mu guards w.
	mu sync.Mutex
	w  io.Writer
	// pipe is nil on a terminal, and after ready.
	pipe *os.File
}

// openProgress must be called once per process, since it takes over the descriptor.
func openProgress(terminal io.Writer) *progress {
	fd, err := strconv.Atoi(os.Getenv(progressFD))
	if err != nil {
		return &progress{w: terminal}
	}
	// The proxy and other children must neither see the variable nor hold the pipe open.
	_ = os.Unsetenv(progressFD)
	syscall.CloseOnExec(fd)
	pipe := os.NewFile(uintptr(fd), "progress")
	return &progress{w: pipe, pipe: pipe}
}

func (p *progress) step(name string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printf("  %-28s %5.2f s\n", name, took.Seconds())
}

func (p *progress) ready(s settings.Settings, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printf("weft is ready after %.2f s\n%s", took.Seconds(), summary(s))
	if p.pipe != nil {
		p.printf("%s\n", readyMark)
		p.close()
	}
}

// stopping is told when an orderly stop begins, which may take a while.
func (p *progress) stopping() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printf("stopping; interrupt again to leave containers and proxy running\n")
}

// end reports an error that came before ready.
func (p *progress) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pipe == nil {
		return
	}
	if err != nil {
		p.printf("%s%s\n", errorMark, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	p.close()
}

// printf ignores errors: a terminal or a reader that is gone must not stop the platform.
func (p *progress) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(p.w, format, args...)
}

// close lets the reader go; what comes later goes to the log.
func (p *progress) close() {
	_ = p.pipe.Close()
	p.pipe, p.w = nil, os.Stdout
}
