package capture_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// inNamespace marks the process that runs the tests.
const inNamespace = "WEFT_CAPTURE_TEST_NAMESPACE"

// TestMain runs the tests in a network namespace of their own, in a second process, because sockets are made on whatever thread the
// runtime chooses, and because rules and routes of the machine must stay as they are.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) == "" {
		os.Exit(again()) //nolint:forbidigo // the main function of a test
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "setting loopback up:", err)
		os.Exit(1) //nolint:forbidigo // the main function of a test
	}
	os.Exit(m.Run()) //nolint:forbidigo // the main function of a test
}

func again() int {
	// Pdeathsig is about the thread that starts the process.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "running tests in a network namespace:", err)
		return 1
	}
	return 0
}
