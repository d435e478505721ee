// Package record writes what a benchmark measured, with the machine and the commit it was measured on, and compares it with its
// bars. Every program below bench/ uses it; nothing else does.
package record

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Bar is one measured figure and the most that it may be.
type Bar struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Measured float64 `json:"measured"`
	Limit    float64 `json:"limit"`
}

// Held reports whether the figure is within its limit.
func (b Bar) Held() bool { return b.Measured <= b.Limit }

// Stage is the distribution of one step of the measured path in milliseconds since the start of the path.
type Stage struct {
	Name string  `json:"name"`
	P50  float64 `json:"p50Millis"`
	P95  float64 `json:"p95Millis"`
	Max  float64 `json:"maxMillis"`
	// Runs is the number of runs in which the step was observed.
	Runs int `json:"runs"`
}

// Result is one run of a benchmark.
type Result struct {
	Benchmark string    `json:"benchmark"`
	Time      time.Time `json:"time"`
	Commit    string    `json:"commit"`
	Machine   Machine   `json:"machine"`
	Bars      []Bar     `json:"bars"`
	Stages    []Stage   `json:"stages,omitempty"`
	// Notes are further figures, each a sentence.
	Notes []string `json:"notes,omitempty"`
}

// Machine says what the figures depend on.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Runtime string `json:"ociRuntime"`
}

// New returns a result of the named benchmark on this machine and this commit.
func New(ctx context.Context, benchmark string) *Result {
	return &Result{
		Benchmark: benchmark, Time: time.Now().UTC().Truncate(time.Second), Commit: output(ctx, "git", "rev-parse", "--short", "HEAD"),
		Machine: Machine{
			CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: output(ctx, "uname", "-r"), Go: runtime.Version(),
			Runtime: strings.SplitN(output(ctx, "sh", "-c", "crun --version || runc --version"), "\n", 2)[0],
		},
	}
}

func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// Percentile returns the q-quantile (0 to 1) of samples by the nearest-rank method, or zero without samples.
func Percentile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Millis is a duration in milliseconds.
func Millis(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// NewStage summarises samples of one step.
func NewStage(name string, samples []time.Duration) Stage {
	return Stage{Name: name, P50: Millis(Percentile(samples, 0.5)), P95: Millis(Percentile(samples, 0.95)), Max: Millis(Percentile(samples, 1)), Runs: len(samples)}
}

// Print writes the result as a person reads it.
func (r *Result) Print(w io.Writer) {
	fmt.Fprintf(w, "# %s\n\nCommit %s, %s. %s, %d cores, kernel %s, %s, %s.\n", r.Benchmark, r.Commit, r.Time.Format(time.DateTime), r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.Runtime)
	fmt.Fprint(w, "\n| bar | measured | limit | |\n|---|---|---|---|\n")
	for _, b := range r.Bars {
		verdict := "holds"
		if !b.Held() {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "| %s | %.4g %s | %g %s | %s |\n", b.Name, b.Measured, b.Unit, b.Limit, b.Unit, verdict)
	}
	if len(r.Stages) > 0 {
		fmt.Fprint(w, "\n| stage, ms since the request was sent | p50 | p95 | max | runs |\n|---|---|---|---|---|\n")
		for _, s := range r.Stages {
			fmt.Fprintf(w, "| %s | %.1f | %.1f | %.1f | %d |\n", s.Name, s.P50, s.P95, s.Max, s.Runs)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n- %s", n)
	}
	fmt.Fprintln(w)
}

// Write stores the result in dir as <benchmark>.json and <benchmark>.md; the history of both is the repository's.
func (r *Result) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var text strings.Builder
	r.Print(&text)
	if err := os.WriteFile(filepath.Join(dir, r.Benchmark+".json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Benchmark+".md"), []byte(text.String()), 0o644)
}

// Conclude prints the result, writes it to dir unless that is empty, and fails when a bar does not hold.
func (r *Result) Conclude(dir string) error {
	r.Print(os.Stdout)
	if dir != "" {
		if err := r.Write(dir); err != nil {
			return err
		}
	}
	if missed := r.Missed(); len(missed) > 0 {
		return fmt.Errorf("bars missed: %s", strings.Join(missed, ", "))
	}
	return nil
}

// Missed returns the names of the bars that do not hold.
func (r *Result) Missed() []string {
	var missed []string
	for _, b := range r.Bars {
		if !b.Held() {
			missed = append(missed, b.Name)
		}
	}
	return missed
}
