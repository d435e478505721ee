package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/term"
)

// reasons are the tests of which a page says why they may be skipped, or are left out.
type reasons struct {
	// skips has the reason by the name of the test.
	skips map[string]string
	// leftOut has the names of tests that are not run.
	leftOut []string
}

// The headings of the page whose tables are read.
const (
	skipsHeading   = "## Tests that skip themselves"
	leftOutHeading = "## Tests that are left out"
)

// readReasons reads the first two columns, test and reason, of the tables below the headings.
func readReasons(path string) (reasons, error) {
	page, err := os.ReadFile(path)
	if err != nil {
		return reasons{}, fmt.Errorf("reading reasons: %w", err)
	}
	out := reasons{skips: map[string]string{}}
	heading := ""
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			heading = line
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "| Test") || len(cells) < 2 {
			continue
		}
		for name := range strings.SplitSeq(cells[0], ",") {
			switch name = strings.TrimSpace(name); heading {
			case skipsHeading:
				out.skips[name] = strings.TrimSpace(cells[1])
			case leftOutHeading:
				out.leftOut = append(out.leftOut, name)
			}
		}
	}
	return out, nil
}

// clearLine removes the line of progress from a terminal.
const clearLine = "\r\033[K"

// progress says what is being done.
func progress(doing string) {
	if onTerminal() {
		fmt.Printf("%s▸ %s", clearLine, doing)
	} else {
		fmt.Println("▸", doing)
	}
}

// progressEnd removes the line of what was done last.
func progressEnd() {
	if onTerminal() {
		fmt.Print(clearLine)
	}
}

func onTerminal() bool { return term.IsTerminal(int(os.Stdout.Fd())) }

// showProgress says how far a suite is after a test has ended. On a terminal the line stays in place, and only what failed or was
// skipped keeps a line of its own.
func showProgress(r suiteResult, ended *testResult, took time.Duration) {
	if ended.subtest() {
		return
	}
	line := fmt.Sprintf("%s %s (%.1fs)", ended.outcome, ended.name, ended.seconds)
	state := fmt.Sprintf("%s: %d of %d passed, %d failed, %d skipped, %s", r.path, r.count(passed), r.total, r.count(failed), r.count(skipped), took.Round(time.Second))
	if !onTerminal() {
		fmt.Printf("%s - %s\n", line, state)
		return
	}
	if ended.outcome != passed {
		fmt.Printf("%s%s\n", clearLine, line)
	}
	progress(state)
}

// report is a whole run.
type report struct {
	results []suiteResult
	took    time.Duration
	// module is the version of the suites, weft that of the binary under test.
	module, weft string
}

// print writes what a person wants to know: the output of what failed, and a line for each suite.
func (r report) print(w io.Writer, allowed reasons) {
	progressEnd()
	for _, s := range r.results {
		for _, t := range s.tests {
			switch {
			case t.outcome == failed || t.outcome == unfinished:
				fmt.Fprintf(w, "\n=== %s %s: %s\n%s", s.path, t.name, t.outcome, t.output.String())
			case t.outcome == skipped && allowed.skips[t.name] == "":
				fmt.Fprintf(w, "\n=== %s %s: skipped without a known reason\n%s", s.path, t.name, t.output.String())
			}
		}
		if s.trouble != nil {
			fmt.Fprintf(w, "\n=== %s: %v\n", s.path, s.trouble)
		}
	}
	fmt.Fprintln(w)
	for _, s := range r.results {
		verdict := "✓"
		if !s.passed(allowed) {
			verdict = "✗"
		}
		fmt.Fprintf(w, "%s %s: %d of %d passed, %d failed, %d skipped, %s\n", verdict, s.path, s.count(passed), s.total,
			s.count(failed)+s.count(unfinished), s.count(skipped), s.took.Round(time.Second))
	}
	fmt.Fprintf(w, "in all %s\n", r.took.Round(time.Second))
}

// write writes the results as a page, with the versions and the machine.
func (r report) write(ctx context.Context, path string) error {
	var page strings.Builder
	fmt.Fprintf(&page, "# Results of the conformance suites\n\nWritten by `make conformance-serving`. Suites of %s %s, %s, %s. %s, %d cores, kernel %s, %s.\n\n",
		module, r.module, r.weft, time.Now().UTC().Format(time.DateOnly), cpu(), runtime.NumCPU(),
		output(ctx, "uname", "-r"), runtime.Version())
	page.WriteString("| suite | tests | passed | failed | skipped | left out | time |\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.results {
		fmt.Fprintf(&page, "| %s | %d | %d | %d | %d | %d | %s |\n", s.path, s.total, s.count(passed), s.count(failed)+s.count(unfinished),
			s.count(skipped), len(s.leaveOut), s.took.Round(time.Second))
	}
	fmt.Fprintf(&page, "\nIn all %s.\n", r.took.Round(time.Second))
	for _, s := range r.results {
		fmt.Fprintf(&page, "\n## %s\n\n| test | | seconds |\n|---|---|---|\n", s.path)
		for _, t := range s.tests {
			if !t.subtest() || t.outcome != passed {
				fmt.Fprintf(&page, "| %s | %s | %.1f |\n", t.name, t.outcome, t.seconds)
			}
		}
	}
	return os.WriteFile(path, []byte(page.String()), 0o644)
}

func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpu() string {
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
