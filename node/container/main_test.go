package container_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
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
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if built, err = os.MkdirTemp("", "weft-container-test-*"); err != nil {
		log.Print(err)
		return 1
	}
	defer os.RemoveAll(built)
	for path, pkg := range map[string]string{
		"weft-shim":     "github.com/weft-dev/weft/cmd/shim",
		"layer/program": "./containertest/testdata/program",
	} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(built, path), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			log.Printf("building %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	return m.Run()
}

func layer() string { return filepath.Join(built, "layer") }

func newInstance(t testing.TB) instance.Instance {
	t.Helper()
	i := instance.Default()
	i.Name, i.StateDir = "t"+strings.ToLower(rand.Text()[:6]), t.TempDir()
	return i
}

// newRuntime returns a runtime whose containers are deleted, and checked to leave nothing, at the end of the test.
func newRuntime(t testing.TB, i instance.Instance) *container.OCI {
	t.Helper()
	r, err := container.NewRuntime(container.Options{Instance: i, ShimPath: filepath.Join(built, "weft-shim")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := deleteAll(r); err != nil {
			t.Error(err)
		}
	})
	return r
}

func deleteAll(r *container.OCI) error {
	ctx := context.Background()
	infos, err := r.List(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := r.Delete(ctx, info.ID); err != nil {
			return fmt.Errorf("deleting %s: %w", info.ID, err)
		}
	}
	return nil
}
