package container_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/internal/instance"
	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/container/monitor"
)

func startProgram(tb testing.TB, r *container.OCI, i instance.Instance, id string, args ...string) container.Status {
	tb.Helper()
	s, err := r.Start(tb.Context(), container.Spec{
		ID: id, Labels: map[string]string{"k": "v"}, Layers: []string{layer()}, LogPath: i.Path(id + ".log"),
		Process: container.Process{Args: append([]string{"/program"}, args...)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func waitFor(tb testing.TB, r *container.OCI, id string) container.Status {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	s, err := r.Wait(ctx, id)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// killMonitor kills a container's monitor, and returns when it is gone.
func killMonitor(tb testing.TB, i instance.Instance, id string) monitor.State {
	tb.Helper()
	s, err := monitor.ReadState(i.Path("containers", id))
	if err != nil {
		tb.Fatal(err)
	}
	kill(tb, s.Monitor)
	return s
}

func kill(tb testing.TB, p monitor.ProcessID) {
	tb.Helper()
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		tb.Fatal(err)
	}
	eventually(tb, "end of process", func() bool { return !p.Alive() })
}

// TestNewProcess has a second runtime take over, as after a restart of weft: all it has is on disk.
func TestNewProcess(t *testing.T) {
	t.Parallel()
	i := newInstance(t)
	before := newRuntime(t, i)
	running := startProgram(t, before, i, "running", "wait", "0")
	startProgram(t, before, i, "exited", "exit", "3")
	exited := waitFor(t, before, "exited")

	after := newRuntime(t, i)
	list, err := after.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"k": "v"}
	want := []container.Info{
		{ID: "exited", Labels: labels, LogPath: i.Path("exited.log"), Status: exited},
		{ID: "running", Labels: labels, LogPath: i.Path("running.log"), Status: running},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if err := after.Kill(t.Context(), "running", int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if s := waitFor(t, after, "running"); s.ExitCode != 137 {
		t.Errorf("got %+v, want exit code 137", s)
	}
}

func TestMonitorKilled(t *testing.T) {
	t.Parallel()
	i := newInstance(t)
	r := newRuntime(t, i)
	startProgram(t, r, i, "a", "wait", "0")
	eventually(t, "its last output", func() bool { // writing without a reader would end it
		data, err := os.ReadFile(i.Path("a.log"))
		return err == nil && strings.HasSuffix(string(data), "ready\n")
	})
	s := killMonitor(t, i, "a")
	if got, err := r.Status(t.Context(), "a"); err != nil || got.State != container.StateRunning {
		t.Errorf("after the monitor's end: got %+v, %v, want a running container", got, err)
	}
	waited := make(chan container.Status)
	go func() { waited <- waitFor(t, r, "a") }()
	eventually(t, "watching the process", func() bool { return watches(t, s.Process.PID) })
	kill(t, s.Process)
	if got := <-waited; got.State != container.StateStopped || got.ExitCode != 137 || got.FinishedAt.IsZero() {
		t.Errorf("after the process's end: got %+v, want a stopped container with code 137", got)
	}
}

// watches reports whether this process has a pidfd of another.
func watches(tb testing.TB, pid int) bool {
	tb.Helper()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		tb.Fatal(err)
	}
	return slices.ContainsFunc(infos, func(path string) bool {
		data, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(data), "\nPid:\t"+strconv.Itoa(pid)+"\n")
	})
}

// TestAllKilled is what a reboot looks like: files say that the container runs, and nothing does.
func TestAllKilled(t *testing.T) {
	t.Parallel()
	i := newInstance(t)
	r := newRuntime(t, i)
	startProgram(t, r, i, "a", "wait", "0")
	kill(t, killMonitor(t, i, "a").Process)
	for _, ask := range []func(context.Context, string) (container.Status, error){r.Status, r.Wait} {
		if got, err := ask(t.Context(), "a"); err != nil || got.State != container.StateUnknown {
			t.Errorf("got %+v, %v, want state unknown", got, err)
		}
	}
	if err := r.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

// TestHalfStarted is weft's death between the first and the last file of a container.
func TestHalfStarted(t *testing.T) {
	t.Parallel()
	i := newInstance(t)
	newRuntime(t, i)
	for id, files := range map[string][]string{"empty": nil, "recorded": {"container.json"}} {
		if err := os.MkdirAll(i.Path("containers", id), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.WriteFile(i.Path("containers", id, name), []byte(`{"id":"`+id+`","cgroupPath":"x"}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := newRuntime(t, i)
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []container.Info{{ID: "recorded", Status: container.Status{State: container.StateUnknown}}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	startProgram(t, r, i, "empty", "exit", "0") // the id is free
}

// TestMonitorMemory bounds what each container costs beside itself.
func TestMonitorMemory(t *testing.T) {
	t.Parallel()
	i := newInstance(t)
	r := newRuntime(t, i)
	startProgram(t, r, i, "a", "lines", "100000")
	waitFor(t, r, "a")
	startProgram(t, r, i, "b", "wait", "0")
	s, err := monitor.ReadState(i.Path("containers", "b"))
	if err != nil {
		t.Fatal(err)
	}
	// Private memory: the executable's pages are there once for all monitors.
	const limitKiB = 6 << 10
	rss, anonymous := field(t, s.Monitor.PID, "VmRSS:"), field(t, s.Monitor.PID, "RssAnon:")
	t.Logf("resident %d KiB, of it private %d KiB", rss, anonymous)
	if rss > limitKiB {
		t.Errorf("a monitor takes %d KiB, want at most %d", rss, limitKiB)
	}
}

// field returns a number of kibibytes from /proc/<pid>/status.
func field(tb testing.TB, pid int, name string) int {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatalf("no %s in the status of process %d", name, pid)
	return 0
}

// TestNoLeaks does not run in parallel with others, which open files too.
func TestNoLeaks(t *testing.T) { //nolint:paralleltest // see above
	i := newInstance(t)
	r := newRuntime(t, i)
	cycle := func() {
		startProgram(t, r, i, "a", "wait", "0")
		for _, tty := range []bool{false, true} {
			opts := container.ExecOptions{Args: []string{"/program", "cat"}, TTY: tty, Stdin: strings.NewReader("x\n\x04"), Stdout: io.Discard}
			if _, err := r.Exec(t.Context(), "a", opts); err != nil {
				t.Error(err)
			}
		}
		if err := r.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	used := func() [3]int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		children, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children")
		if err != nil {
			t.Fatal(err)
		}
		return [3]int{len(files), runtime.NumGoroutine(), len(strings.Fields(string(children)))}
	}
	cycle() // opens what stays open for good, as Go's poller
	before := used()
	for range 3 {
		cycle()
	}
	var after [3]int
	eventually(t, "files, goroutines and children as before", func() bool {
		after = used()
		return after[0] <= before[0] && after[1] <= before[1] && after[2] <= before[2]
	})
}

// TestIdleMonitors sees that Run's monitors are used, that one that was killed while idle is no harm, and that none is left.
func TestIdleMonitors(t *testing.T) {
	t.Parallel()
	i := newInstance(t)
	opts := options(i)
	opts.ShimPath = filepath.Join(t.TempDir(), "weft-shim") // a name by which to tell these monitors from those of other tests
	if err := os.Link(filepath.Join(built, "weft-shim"), opts.ShimPath); err != nil {
		t.Fatal(err)
	}
	newRuntime(t, i) // cleans up
	r, err := container.NewRuntime(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	var idle []monitor.ProcessID
	eventually(t, "idle monitors", func() bool { idle = processes(t, opts.ShimPath); return len(idle) == 3 })
	for _, p := range idle[:2] {
		kill(t, p)
	}
	startProgram(t, r, i, "a", "exit", "4")
	if s := waitFor(t, r, "a"); s.ExitCode != 4 {
		t.Errorf("got %+v, want exit code 4", s)
	}
	eventually(t, "new idle monitors", func() bool { return len(processes(t, opts.ShimPath)) == 3 })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	eventually(t, "end of idle monitors", func() bool { return len(processes(t, opts.ShimPath)) == 0 })
}

// processes returns those that run an executable.
func processes(tb testing.TB, executable string) []monitor.ProcessID {
	tb.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		tb.Fatal(err)
	}
	var found []monitor.ProcessID
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != executable {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			tb.Fatal(err)
		}
		if p, err := monitor.Identify(pid); err == nil {
			found = append(found, p)
		}
	}
	return found
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("%s: not within 20 s", what)
		}
	}
}
