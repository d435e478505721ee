package supervise_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/weft-dev/weft/embedded/supervise"
)

// limit is how long anything may take before a test fails.
const limit = 20 * time.Second

// TestMain lets the test binary play the supervised process.
func TestMain(m *testing.M) {
	switch os.Getenv("SUPERVISE_ROLE") {
	case "":
		m.Run()
	case "polite":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("running")
		<-signals
	case "succeeded":
		// Ends only when another's record stands in the pid file.
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("running")
		<-signals
		if err := os.Rename(os.Getenv("SUPERVISE_NEXT"), os.Getenv("SUPERVISE_PID_FILE")); err != nil {
			fmt.Println(err)
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("running")
		select {}
	case "dying":
		fmt.Println("running")
	}
}

// started is one call of Options.Started.
type started struct {
	pid     int
	adopted bool
}

func options(t *testing.T, role string) (supervise.Options, chan started) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan started, 64)
	dir := t.TempDir()
	return supervise.Options{
		Path: self, Args: []string{"-test.run=^$"}, Env: []string{"SUPERVISE_ROLE=" + role},
		PIDFile: filepath.Join(dir, "pid"), LogPath: filepath.Join(dir, "log"), StopTimeout: limit,
		Started: func(pid int, adopted bool) { calls <- started{pid, adopted} },
	}, calls
}

// run supervises until the returned function is called, which also checks the error.
func run(t *testing.T, opts supervise.Options) (stop func()) {
	t.Helper()
	p, err := supervise.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := receive(t, done); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatal("nothing happened in time")
		panic("unreachable")
	}
}

// waitRunning returns when the process has written n lines, that is when it handles signals.
func waitRunning(t *testing.T, log string, n int) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(limit)
	for {
		if lines(log) >= n {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("process has not written %d lines", n)
		case <-ticker.C:
		}
	}
}

func lines(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
	}
	return n
}

func TestRunRestartsAndStops(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "polite")
	stop := run(t, opts)
	first := receive(t, calls)
	waitRunning(t, opts.LogPath, 1)
	if err := syscall.Kill(first.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := receive(t, calls)
	if second.pid == first.pid || second.adopted {
		t.Errorf("after a kill: %+v, want a new process instead of %d", second, first.pid)
	}
	waitRunning(t, opts.LogPath, 2)
	stop()
	if _, alive, err := supervise.Find(opts.PIDFile); alive || err != nil {
		t.Errorf("after stop: alive %v, error %v", alive, err)
	}
	if _, err := os.Stat(opts.PIDFile); !os.IsNotExist(err) {
		t.Errorf("pid file is left behind: %v", err)
	}
}

func TestRunAdopts(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "polite")
	stop := run(t, opts)
	first := receive(t, calls)
	waitRunning(t, opts.LogPath, 1)

	// A second supervisor stands for the first one's successor; the first never notices.
	successor := opts
	adoptions := make(chan started, 8)
	successor.Started = func(pid int, adopted bool) { adoptions <- started{pid, adopted} }
	stopSuccessor := run(t, successor)
	if got := receive(t, adoptions); got != (started{first.pid, true}) {
		t.Errorf("successor got %+v, want to adopt %d", got, first.pid)
	}
	stopSuccessor()
	// Its process gone, the first supervisor starts another, which must end too.
	receive(t, calls)
	waitRunning(t, opts.LogPath, 2)
	stop()
}

func TestRunReplacesWhenOptionsDiffer(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "polite")
	opts.Started = func(pid int, adopted bool) { calls <- started{pid, adopted} }
	p, err := supervise.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	first := receive(t, calls)
	waitRunning(t, opts.LogPath, 1)

	changed := opts
	changed.Args = append([]string{"-test.v"}, opts.Args...)
	changed.PIDFile = filepath.Join(t.TempDir(), "pid")
	record, err := os.ReadFile(opts.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(changed.PIDFile, record, 0o600); err != nil {
		t.Fatal(err)
	}
	changes := make(chan started, 8)
	changed.Started = func(pid int, adopted bool) { changes <- started{pid, adopted} }
	stopChanged := run(t, changed)
	if got := receive(t, changes); got.adopted || got.pid == first.pid {
		t.Errorf("with other arguments: %+v, want a new process instead of %d", got, first.pid)
	}
	stopChanged()
	cancel()
	if err := receive(t, done); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunBacksOffAfterQuickDeaths(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "dying")
	stop := run(t, opts)
	began := time.Now()
	for range 4 {
		receive(t, calls)
	}
	// At once, 100 ms and 200 ms lie between four starts.
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("four quick deaths took %v, want a growing pause between them", took)
	}
	stop()
}

func TestStopKillsAfterTimeout(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "stubborn")
	opts.StopTimeout = 50 * time.Millisecond
	stop := run(t, opts)
	process := receive(t, calls)
	waitRunning(t, opts.LogPath, 1)
	stop()
	if err := syscall.Kill(process.pid, 0); err == nil {
		t.Error("process is still there")
	}
}

func TestRunStopsWhatItStartedWithoutPIDFile(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "polite")
	stop := run(t, opts)
	process := receive(t, calls)
	waitRunning(t, opts.LogPath, 1)
	if err := os.Remove(opts.PIDFile); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := syscall.Kill(process.pid, 0); err == nil {
		t.Error("process is still there")
	}
}

func TestStopLeavesPIDFileOfSuccessor(t *testing.T) {
	t.Parallel()
	opts, calls := options(t, "succeeded")
	next := opts.PIDFile + ".next"
	opts.Env = append(opts.Env, "SUPERVISE_NEXT="+next, "SUPERVISE_PID_FILE="+opts.PIDFile)
	const successor = `{"pid":4194305,"start":1,"boot":"x"}`
	if err := os.WriteFile(next, []byte(successor), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := run(t, opts)
	receive(t, calls)
	waitRunning(t, opts.LogPath, 1)
	stop()
	if got, err := os.ReadFile(opts.PIDFile); err != nil || string(got) != successor {
		t.Errorf("pid file of the successor after stop: %q, %v, want %q", got, err, successor)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, content string
	}{
		{name: "torn", content: `{"pid":`},
		{name: "no such process", content: `{"pid":4194305,"start":1,"boot":"x"}`},
		{name: "other process with the same id", content: fmt.Sprintf(`{"pid":%d,"start":1,"boot":"x"}`, os.Getpid())},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "pid")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, alive, err := supervise.Find(path); alive || err != nil {
				t.Errorf("alive %v, error %v, want neither", alive, err)
			}
			if err := supervise.Stop(t.Context(), path, time.Second); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
}

func TestNewWithoutExecutable(t *testing.T) {
	t.Parallel()
	if _, err := supervise.New(supervise.Options{Path: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("New accepts an executable that does not exist")
	}
}
