package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Timing of restarts. The first one is immediate, since traffic stands still meanwhile.
const (
	quickDeath   = 2 * time.Second
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// logLimit is the size above which a log is put aside when the process starts.
const logLimit = 20 << 20

// Options of a Process.
type Options struct {
	// Path of the executable, and its arguments without the name.
	Path string
	Args []string
	// Env in the form KEY=value, added to this process's environment.
	Env []string
	// PIDFile is where the running process is written down.
	PIDFile string
	// LogPath receives standard output and error, appended.
	LogPath string
	// StopTimeout is how long the process may take to end after SIGTERM before it is killed. Default 10 s.
	StopTimeout time.Duration
	// Started is called, from Run, whenever a process was started or adopted. Optional.
	Started func(pid int, adopted bool)
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Process keeps a process running.
type Process struct {
	opts Options
	// reapers are the goroutines that collect exit codes.
	reapers sync.WaitGroup
}

// New checks that the executable exists.
func New(opts Options) (*Process, error) {
	if _, err := os.Stat(opts.Path); err != nil {
		return nil, fmt.Errorf("finding executable: %w", err)
	}
	if opts.StopTimeout == 0 {
		opts.StopTimeout = 10 * time.Second
	}
	if opts.Started == nil {
		opts.Started = func(int, bool) {}
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Process{opts: opts}, nil
}

// Run adopts the process of the pid file or starts one, starts it again whenever it ends, and stops it when ctx ends.
// A running process whose executable, arguments or environment differ from the options is replaced.
func (p *Process) Run(ctx context.Context) error {
	defer p.reapers.Wait()
	print, err := fingerprint(p.opts.Path, p.opts.Args, p.opts.Env)
	if err != nil {
		return err
	}
	found, alive, err := Find(p.opts.PIDFile)
	if err != nil {
		return err
	}
	if alive && found.Fingerprint == print {
		p.opts.Log.Info("adopted running process", "path", p.opts.Path, "pid", found.PID)
		p.opts.Started(found.PID, true)
		if err := p.follow(ctx, found); err != nil {
			return err
		}
	} else if alive {
		p.opts.Log.Info("replacing process started with other options", "path", p.opts.Path, "pid", found.PID)
		if err := Stop(ctx, p.opts.PIDFile, p.opts.StopTimeout); err != nil {
			return err
		}
	}
	return p.keep(ctx, print)
}

// keep starts the process again and again.
func (p *Process) keep(ctx context.Context, print string) error {
	var backoff time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		process, err := p.start(ctx, print)
		if err != nil {
			return err
		}
		p.opts.Started(process.PID, false)
		if err := p.follow(ctx, process); err != nil {
			return err
		}
		if time.Since(began) >= quickDeath {
			backoff = 0
			continue
		}
		pause(ctx, backoff)
		backoff = min(max(2*backoff, firstBackoff), maxBackoff)
	}
	return nil
}

// start starts the process in a session of its own, so that neither a terminal's hang-up nor its supervisor's end reaches it.
func (p *Process) start(ctx context.Context, print string) (Record, error) {
	log, err := openLog(p.opts.LogPath)
	if err != nil {
		return Record{}, err
	}
	defer func() { _ = log.Close() }()
	// The end of ctx must not kill it: it is stopped politely, by follow.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.opts.Path, p.opts.Args...)
	cmd.Env = append(os.Environ(), p.opts.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Record{}, fmt.Errorf("starting %q: %w", p.opts.Path, err)
	}
	pid := cmd.Process.Pid
	record, err := newRecord(pid, print)
	if err == nil {
		err = record.write(p.opts.PIDFile)
	}
	// The record's check for zombies makes reaping a matter of tidiness; nobody needs the exit code but the log.
	p.reapers.Go(func() {
		if err := cmd.Wait(); err != nil {
			p.opts.Log.Warn("process ended", "path", p.opts.Path, "pid", pid, "error", err, "log", p.opts.LogPath)
		}
	})
	if err != nil {
		return Record{}, errors.Join(err, kill(pid, syscall.SIGKILL))
	}
	return record, nil
}

// follow returns when the process has ended. When ctx ends it stops the process first: the one that it followed, whatever has
// become of the pid file.
func (p *Process) follow(ctx context.Context, process Record) error {
	err := wait(ctx, process.PID)
	if ctx.Err() == nil {
		return err
	}
	// The process is stopped although ctx has ended: that is what its end means here.
	return process.stop(context.WithoutCancel(ctx), p.opts.PIDFile, p.opts.StopTimeout)
}

// Stop ends the process that a pid file names, by SIGTERM and after timeout by SIGKILL, and removes the file.
// It is for a process without supervisor; a file that names no living process is only removed.
func Stop(ctx context.Context, pidFile string, timeout time.Duration) error {
	found, _, err := Find(pidFile)
	if err != nil {
		return err
	}
	return found.stop(ctx, pidFile, timeout)
}

// stop ends the process if it lives, and removes the pid file unless that names another process by now: a supervisor that saw
// this one end may have started the next.
func (r Record) stop(ctx context.Context, pidFile string, timeout time.Duration) error {
	if r.alive() {
		if err := Terminate(ctx, r.PID, timeout); err != nil {
			return err
		}
	}
	if now, _, err := Find(pidFile); err != nil || now != r {
		return err
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing pid file: %w", err)
	}
	return nil
}

// Terminate ends a process that need not be a child, by SIGTERM and after timeout by SIGKILL, and returns when it has ended.
func Terminate(ctx context.Context, pid int, timeout time.Duration) error {
	if err := kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := wait(patient, pid); err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	return wait(ctx, pid)
}

func kill(pid int, signal syscall.Signal) error {
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %s to process %d: %w", signal, pid, err)
	}
	return nil
}

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("putting log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening log: %w", err)
	}
	return f, nil
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
