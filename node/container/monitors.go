package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/node/container/monitor"
)

// idleMonitors is how many monitors wait for a container, enough for a pod with two containers and a probe.
const idleMonitors = 3

// refillAfter keeps the start of the next monitor off the processors while a container starts.
const refillAfter = 200 * time.Millisecond

// monitorOOMScore is what containerd gives to its monitors: below every pod, and above what the kernel never kills.
const monitorOOMScore = -998

// conn is the socket to one monitor.
type conn struct{ *net.UnixConn }

// monitors starts monitor processes and keeps a few ready.
type monitors struct {
	path string
	log  *slog.Logger
	// protect says that this process may shield a monitor from the kernel's out-of-memory killer.
	protect bool

	// mu guards everything below.
	mu      sync.Mutex
	running bool
	idle    []conn
	wake    chan struct{}
}

// run keeps idle monitors until ctx ends.
func (m *monitors) run(ctx context.Context) error {
	m.mu.Lock()
	m.running, m.wake = true, make(chan struct{}, 1)
	wake := m.wake
	m.mu.Unlock()
	defer m.drop()
	for {
		for m.missing() && ctx.Err() == nil {
			c, err := m.start()
			if err != nil {
				m.log.Error("Starting an idle container monitor failed", "error", err)
				break
			}
			m.put(c)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		timer := time.NewTimer(refillAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func (m *monitors) missing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.idle) < idleMonitors
}

func (m *monitors) put(c conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle = append(m.idle, c)
}

// drop closes the sockets of the idle monitors, at which they end.
func (m *monitors) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.idle {
		_ = c.Close()
	}
	m.running, m.idle = false, nil
}

// begin gives a job, with files, to an idle monitor or to a new one. The caller closes the connection.
func (m *monitors) begin(job monitor.Job, files ...*os.File) (conn, error) {
	for {
		c, ok := m.take()
		if !ok {
			break
		}
		if err := c.send(job, files...); err == nil {
			return c, nil
		}
		_ = c.Close() // somebody killed it while it was idle
	}
	c, err := m.start()
	if err != nil {
		return conn{}, err
	}
	if err := c.send(job, files...); err != nil {
		return conn{}, errors.Join(err, c.Close())
	}
	return c, nil
}

// take returns an idle monitor if there is one.
func (m *monitors) take() (conn, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
	if len(m.idle) == 0 {
		return conn{}, false
	}
	c := m.idle[0]
	m.idle = m.idle[1:]
	return c, true
}

// start starts a monitor in a session of its own, so that no signal for weft's process group reaches it.
func (m *monitors) start() (conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{}, fmt.Errorf("making socket to monitor: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "weft")
	defer func() { _ = ours.Close() }()
	defer func() { _ = theirs.Close() }()
	c, err := net.FileConn(ours)
	if err != nil {
		return conn{}, fmt.Errorf("using socket to monitor: %w", err)
	}
	cmd := exec.Command(m.path) //nolint:noctx // it outlives every context of this process
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	// One thread at a time is plenty, and each further one costs memory.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return conn{}, errors.Join(fmt.Errorf("starting monitor: %w", err), c.Close())
	}
	if m.protect {
		if err := shield(cmd.Process.Pid); err != nil {
			m.log.Debug("A container monitor is not shielded", "error", err)
		}
	}
	// Nobody waits for this goroutine: it lasts as long as the container, which outlives everything here. The monitor's exit code
	// tells nothing that its status file does not.
	go func() { _ = cmd.Wait() }()
	return conn{c.(*net.UnixConn)}, nil
}

// shield makes a monitor the last that the kernel kills when the machine has no memory left: it is small, and its container loses its
// output and exit code with it. The container's own processes get their score from the OCI runtime.
func shield(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(monitorOOMScore)), 0o644)
}

// send gives the monitor its job, with files.
func (c conn) send(job monitor.Job, files ...*os.File) error {
	data, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("encoding job: %w", err)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
			// Go's pipes do not block, but a program expects that its standard files do.
			if err := unix.SetNonblock(fds[i], false); err != nil {
				return fmt.Errorf("setting standard file to blocking: %w", err)
			}
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(data, oob, nil); err != nil {
		return fmt.Errorf("sending job to monitor: %w", err)
	}
	return nil
}

// receive waits for the next reply and the file that comes with it, if any. A context that ends closes the connection.
func (c conn) receive(ctx context.Context) (monitor.Reply, *os.File, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if ctx.Err() != nil {
		return monitor.Reply{}, nil, ctx.Err()
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return monitor.Reply{}, nil, fmt.Errorf("waiting for monitor: %w", err)
	}
	fds, err := monitor.ParseFiles(oob[:oobn])
	if err != nil {
		return monitor.Reply{}, nil, err
	}
	var reply monitor.Reply
	if err := json.Unmarshal(buf[:n], &reply); err != nil {
		return monitor.Reply{}, nil, fmt.Errorf("decoding monitor's reply: %w", err)
	}
	var file *os.File
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			return monitor.Reply{}, nil, err
		}
		unix.CloseOnExec(fd)
		file = os.NewFile(uintptr(fd), "terminal")
	}
	return reply, file, nil
}
