package containertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/node/container"
)

// patience bounds every wait of a test; only a failure takes so long.
const patience = 20 * time.Second

// Harness makes what the conformance tests need.
type Harness struct {
	// New returns a runtime with nothing in it, cleaned up at the end of the test.
	New func(t *testing.T) container.Runtime
	// Layers contain the program of testdata/program as /program.
	Layers []string
}

// Lifecycle tests what every implementation of container.Runtime promises about containers, with and without processes.
func Lifecycle(t *testing.T, h Harness) {
	t.Helper()
	t.Run("unknown id", func(t *testing.T) {
		t.Parallel()
		unknown(t, h.New(t))
	})
	t.Run("start, kill, delete", func(t *testing.T) {
		t.Parallel()
		h.startKillDelete(t)
	})
	t.Run("start twice", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		h.start(t, r, "wait", "0")
		if _, err := r.Start(ctx(t), h.spec(t, "wait", "0")); err == nil {
			t.Error("got no error")
		}
		if s, err := r.Status(ctx(t), "a"); err != nil || s.State != container.StateRunning {
			t.Errorf("the first one: got %v, %v, want it to run", s, err)
		}
	})
	t.Run("start with an ended context", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		ended, cancel := context.WithCancel(ctx(t))
		cancel()
		if _, err := r.Start(ended, h.spec(t, "wait", "0")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if list, err := r.List(ctx(t)); err != nil || len(list) != 0 {
			t.Errorf("left behind: %v, %v", list, err)
		}
	})
	t.Run("delete while running", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		h.start(t, r, "wait", "0")
		if err := r.Delete(ctx(t), "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Status(ctx(t), "a"); !errors.Is(err, container.ErrNotFound) {
			t.Errorf("got %v, want %v", err, container.ErrNotFound)
		}
	})
	t.Run("wait ends with its context", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		h.start(t, r, "wait", "0")
		waiting, cancel := context.WithCancel(ctx(t))
		cancel()
		if _, err := r.Wait(waiting, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
	t.Run("exec in an exited container", func(t *testing.T) {
		t.Parallel()
		r := h.New(t)
		h.start(t, r, "wait", "0")
		kill(t, r, syscall.SIGKILL)
		wait(t, r, "a")
		if _, err := r.Exec(ctx(t), "a", container.ExecOptions{Args: []string{"/program", "id"}, Stdout: &bytes.Buffer{}}); err == nil {
			t.Error("got no error")
		}
	})
}

func unknown(t *testing.T, r container.Runtime) {
	t.Helper()
	calls := map[Method]func() error{
		Status: func() error { _, err := r.Status(ctx(t), "none"); return err },
		Wait:   func() error { _, err := r.Wait(ctx(t), "none"); return err },
		Kill:   func() error { return r.Kill(ctx(t), "none", 9) },
		Delete: func() error { return r.Delete(ctx(t), "none") },
		Exec: func() error {
			_, err := r.Exec(ctx(t), "none", container.ExecOptions{Args: []string{"/program"}, Stdout: &bytes.Buffer{}})
			return err
		},
	}
	for method, call := range calls {
		if err := call(); !errors.Is(err, container.ErrNotFound) {
			t.Errorf("%s: got %v, want %v", method, err, container.ErrNotFound)
		}
	}
}

func (h Harness) startKillDelete(t *testing.T) {
	t.Helper()
	r := h.New(t)
	spec := h.spec(t, "wait", "0")
	spec.Labels = map[string]string{"pod": "p", "attempt": "2"}
	started, err := r.Start(ctx(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	if started.State != container.StateRunning || started.PID <= 0 || started.StartedAt.IsZero() {
		t.Errorf("started: got %+v", started)
	}
	list, err := r.List(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []container.Info{{ID: "a", Labels: spec.Labels, LogPath: spec.LogPath, Status: started}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for range 2 { // the second is for an exited container, which is no error
		kill(t, r, syscall.SIGKILL)
		exited := wait(t, r, "a")
		if exited.State != container.StateStopped || exited.ExitCode != 137 || exited.Signal != 9 || exited.FinishedAt.Before(started.StartedAt) {
			t.Errorf("exited: got %+v", exited)
		}
	}
	if err := r.Delete(ctx(t), "a"); err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(ctx(t)); err != nil || len(list) != 0 {
		t.Errorf("list after delete: got %v, %v, want none", list, err)
	}
}

// ctx bounds one call of the runtime.
func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return c
}

// spec is that of the container "a", which runs the test program.
func (h Harness) spec(t *testing.T, args ...string) container.Spec {
	t.Helper()
	return container.Spec{
		ID: "a", Layers: h.Layers, LogPath: filepath.Join(t.TempDir(), "0.log"),
		Process: container.Process{Args: append([]string{"/program"}, args...)},
	}
}

func (h Harness) start(t *testing.T, r container.Runtime, args ...string) container.Spec {
	t.Helper()
	spec := h.spec(t, args...)
	if _, err := r.Start(ctx(t), spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

// run starts a container, waits for its end and returns that with what it wrote.
func run(t *testing.T, r container.Runtime, spec container.Spec) (container.Status, string) {
	t.Helper()
	if _, err := r.Start(ctx(t), spec); err != nil {
		t.Fatal(err)
	}
	status := wait(t, r, spec.ID)
	return status, output(t, spec.LogPath)
}

func wait(t *testing.T, r container.Runtime, id string) container.Status {
	t.Helper()
	s, err := r.Wait(ctx(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kill(t *testing.T, r container.Runtime, signal syscall.Signal) {
	t.Helper()
	if err := r.Kill(ctx(t), "a", int(signal)); err != nil {
		t.Fatal(err)
	}
}

// output returns the content of a log without what CRI's format adds.
func output(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 || !slices.Contains([]string{"F", "P"}, fields[2]) {
			t.Fatalf("log has the line %q", line)
		}
		if fields[2] == "P" {
			fields[3] = strings.TrimSuffix(fields[3], "\n")
		}
		b.WriteString(fields[3])
	}
	return b.String()
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	c := ctx(t)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-c.Done():
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
