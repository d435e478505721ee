package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// childEnv marks the process that runs the tests.
const childEnv = "WEFT_SANDBOX_TEST_CHILD"

// TestMain runs the tests in a process with network and mount namespaces of its own. Whatever a test leaves behind, the machine's
// network, firewall and mounts stay as they are.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := prepare(); err != nil {
			panic(err)
		}
		m.Run()
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread that started the child
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			panic(fmt.Errorf("starting the tests in new namespaces (they need root): %w", err))
		}
		os.Exit(1) //nolint:forbidigo // the tests failed in the child, which has said so
	}
}

// prepare keeps mounts of the tests from spreading to other mount namespaces and starts lo.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
