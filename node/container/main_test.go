package container_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-dev/weft/internal/instance"
	"github.com/weft-dev/weft/node/container"
)

// built is the folder with what TestMain builds: weft-shim, and a layer with the test program in it.
var built string

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		panic(err)
	}
	m.Run()
	if err := os.RemoveAll(built); err != nil {
		panic(err)
	}
}

// build makes the programs that the tests run.
func build() (err error) {
	if built, err = os.MkdirTemp("", "weft-container-test-*"); err != nil {
		return err
	}
	for path, pkg := range map[string]string{
		"weft-shim":     "github.com/weft-dev/weft/cmd/shim",
		"layer/program": "./containertest/testdata/program",
	} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(built, path), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

func layer() string { return filepath.Join(built, "layer") }

func newInstance(tb testing.TB) instance.Instance {
	tb.Helper()
	i := instance.Default()
	i.Name, i.StateDir = "t"+strings.ToLower(rand.Text()[:6]), tb.TempDir()
	return i
}

// newRuntime returns a runtime whose containers are deleted, and checked to leave nothing, at the end of the test.
func newRuntime(tb testing.TB, i instance.Instance) *container.OCI {
	tb.Helper()
	r, err := container.NewRuntime(options(i))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := container.RemoveAll(context.Background(), options(i)); err != nil {
			tb.Error(err)
		}
		checkClean(tb, i)
	})
	return r
}

// checkClean looks for what an instance may leave in the kernel.
func checkClean(tb testing.TB, i instance.Instance) {
	tb.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		tb.Fatal(err)
	}
	if strings.Contains(string(mounts), i.StateDir) {
		tb.Errorf("mounts below %s are left", i.StateDir)
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} { // versions 2 and 1
		if left, err := filepath.Glob(pattern + i.CgroupParent()); err != nil || len(left) > 0 {
			tb.Errorf("cgroups are left: %v, %v", left, err)
		}
	}
	if left, err := filepath.Glob(i.Path("containers", "*")); err != nil || len(left) > 0 {
		tb.Errorf("containers are left: %v, %v", left, err)
	}
}

func options(i instance.Instance) container.Options {
	return container.Options{Instance: i, ShimPath: filepath.Join(built, "weft-shim")}
}
