// Package preflight finds out before anything is started whether a platform can run on this machine, and says in one line what to
// do when it cannot. Command weft up calls it; it imports no Kubernetes.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/cmd/weft/settings"
)

// Binaries are the paths of the programs that weft starts.
type Binaries struct {
	// Proxy is weft-proxy, Shim is weft-shim, Runtime is crun or runc.
	Proxy, Shim, Runtime string
}

// Privileges reports what this process is not allowed to do.
func Privileges() error {
	if os.Geteuid() != 0 {
		return errors.New("weft up needs root for containers, networks and cgroups: run it with sudo")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	for _, c := range []struct {
		number uint
		name   string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}} {
		if data[c.number/32].Effective&(1<<(c.number%32)) == 0 {
			return fmt.Errorf("weft up needs the capability %s, which this process lacks; in a container, run it privileged", c.name)
		}
	}
	return nil
}

// StateDir makes the state directory and reports whether it can be written to.
func StateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return stateDirError(dir, err)
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return stateDirError(dir, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func stateDirError(dir string, err error) error {
	reason := err
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		reason = errno
	}
	return fmt.Errorf("state directory %s cannot be written to: %w; choose another with --state-dir", dir, reason)
}

// FindBinaries looks beside this executable first, where a release puts them, then in PATH.
func FindBinaries() (Binaries, error) {
	self, err := os.Executable()
	if err != nil {
		return Binaries{}, fmt.Errorf("finding my own executable: %w", err)
	}
	dir := filepath.Dir(self)
	var b Binaries
	for _, name := range []string{"crun", "runc", "weft-runc"} {
		if b.Runtime = find(dir, name); b.Runtime != "" {
			break
		}
	}
	if b.Runtime == "" {
		return b, errors.New("no OCI runtime found: install crun (or runc) and make sure that it is in PATH")
	}
	if b.Proxy = find(dir, "weft-proxy"); b.Proxy == "" {
		return b, fmt.Errorf("weft-proxy is neither in %s nor in PATH: install it beside weft", dir)
	}
	if b.Shim = find(dir, "weft-shim"); b.Shim == "" {
		return b, fmt.Errorf("weft-shim is neither in %s nor in PATH: install it beside weft", dir)
	}
	return b, nil
}

func find(dir, name string) string {
	beside := filepath.Join(dir, name)
	if unix.Access(beside, unix.X_OK) == nil {
		return beside
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	return path
}

// Ports reports the first port that something else listens on. Those of the proxy are left out when proxyRuns, because then it is
// the proxy of an earlier run, about to be adopted.
func Ports(ctx context.Context, ports []settings.Port, proxyRuns bool) error {
	for _, p := range ports {
		if p.Proxy && proxyRuns {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.String())
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("port %d is in use%s: stop that or choose another port with %s", p.Number, owner(p.Number), p.Flag)
		case err != nil:
			return fmt.Errorf("port %d cannot be used: %w; see %s", p.Number, err, p.Flag)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("trying port %d: %w", p.Number, err)
		}
	}
	return nil
}
