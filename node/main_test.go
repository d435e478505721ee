package node_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
	"github.com/weft-dev/weft/node/image"
)

// testImage is the image of testdata/server.
const testImage = "dev.local/server"

// builtEnv names the directory with weft-shim and an image store with testImage. It marks the process that runs the tests.
const builtEnv = "WEFT_NODE_TEST_BUILT"

// TestMain builds what the tests need and runs them in a process with network and mount namespaces of its own. Whatever a test
// leaves behind, the machine's network, firewall and mounts stay as they are.
func TestMain(m *testing.M) {
	code, err := 0, error(nil)
	if built() == "" {
		code, err = runChild(context.Background())
	} else if err = enter(); err == nil {
		code = m.Run()
	}
	if err != nil {
		panic(err) // there is no test to fail yet
	}
	os.Exit(code) //nolint:forbidigo // the tests' main
}

func built() string { return os.Getenv(builtEnv) }

func runChild(ctx context.Context) (code int, err error) {
	dir, err := os.MkdirTemp("", "weft-node-test-*")
	if err != nil {
		return 1, fmt.Errorf("making a directory: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	if err := build(ctx, dir); err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), builtEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread that started the child
	if err := cmd.Run(); cmd.ProcessState == nil {
		return 1, fmt.Errorf("starting the tests in new namespaces (they need root): %w", err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// enter keeps mounts of the tests from spreading to other mount namespaces and starts lo.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("starting lo: %w", err)
	}
	return nil
}

func build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "weft-shim"), "github.com/weft-dev/weft/cmd/shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the monitor: %w\n%s", err, out)
	}
	store, err := image.Open(filepath.Join(dir, "images"), image.Options{})
	if err != nil {
		return fmt.Errorf("opening the image store: %w", err)
	}
	if _, err := store.Build(ctx, image.BuildOptions{Name: testImage, Package: "testdata/server"}); err != nil {
		return fmt.Errorf("building the image: %w", err)
	}
	return nil
}

// newInstance is a platform of its own.
func newInstance(t *testing.T) instance.Instance {
	t.Helper()
	i := instance.Default()
	i.Name, i.StateDir = "t"+strings.ToLower(rand.Text()[:6]), t.TempDir()
	return i
}
