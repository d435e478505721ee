package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suite is one package of upstream's tests.
type suite struct {
	// path is the import path of the package below the module.
	path string
	// leaveOut are the tests that are not run.
	leaveOut []string
}

// conformanceSuites are those that an implementation must pass.
func conformanceSuites() []suite {
	return []suite{{path: "test/conformance/api/v1"}, {path: "test/conformance/api/v1beta1"}, {path: "test/conformance/runtime"}}
}

// endToEndSuite has upstream's own end-to-end tests, of which some look at the insides of upstream's implementation.
func endToEndSuite(leaveOut []string) suite { return suite{path: "test/e2e", leaveOut: leaveOut} }

// outcome is how a test ended, in the words of test2json.
type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "fail"
	skipped outcome = "skip"
	// unfinished is a test that began and of which nothing more was heard: the suite ran out of time or crashed.
	unfinished outcome = "unfinished"
)

// testResult is one test, or one subtest with the names of its parents in front.
type testResult struct {
	name    string
	outcome outcome
	seconds float64
	// output is what the test printed.
	output strings.Builder
}

// subtest reports whether the test is part of another.
func (t *testResult) subtest() bool { return strings.Contains(t.name, "/") }

// suiteResult is a suite after its run. Tests are in the order in which they began.
type suiteResult struct {
	suite
	tests []*testResult
	took  time.Duration
	// total is the number of tests, without subtests, that should have run.
	total int
	// trouble is why the suite itself ended badly, nil when it is enough to look at the tests.
	trouble error
}

// event is a line of test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// run runs the suite, or of it what matches the expression, and shows how far it is.
func (s suite) run(ctx context.Context, b built, p *platform, registry, expression string) (suiteResult, error) {
	result := suiteResult{suite: s}
	top, _, _ := strings.Cut(expression, "/")
	listed, err := exec.CommandContext(ctx, b.tests[s.path], "-test.list="+cmp.Or(top, ".")).Output()
	if err != nil {
		return result, fmt.Errorf("listing the tests of %s: %w", s.path, err)
	}
	for name := range strings.FieldsSeq(string(listed)) {
		if !slices.Contains(s.leaveOut, name) {
			result.total++
		}
	}
	// Upstream's tests read files beside them.
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", b.tests[s.path],
		"-test.run="+expression, "-test.skip="+exactly(s.leaveOut), "-test.v=test2json", "-test.parallel=4", "-test.timeout=40m",
		"-kubeconfig="+filepath.Join(p.stateDir, "kubeconfig"), "--dockerrepo="+registry, "--tag="+tag,
		"-disable-logstream", "-enable-alpha", "-enable-beta", "-ingress-class=weft.ingress.networking.knative.dev")
	cmd.Dir = filepath.Join(b.module, s.path)
	cmd.Env = append(os.Environ(), "SYSTEM_NAMESPACE=knative-serving", "GATEWAY_NAMESPACE_OVERRIDE="+gatewayNamespace, "GATEWAY_OVERRIDE="+gatewayName)
	cmd.Stderr = os.Stderr
	// The tests are a child of the command; both end with their group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return result, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return result, fmt.Errorf("running %s: %w", s.path, err)
	}
	progress(s.path)
	err = result.follow(out, func(ended *testResult) { showProgress(result, ended, time.Since(start)) })
	waitErr := cmd.Wait()
	result.took = time.Since(start)
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	result.trouble = err
	if waitErr != nil && !slices.ContainsFunc(result.tests, func(t *testResult) bool { return t.outcome == failed }) {
		result.trouble = errors.Join(err, waitErr)
	}
	return result, nil
}

// exactly is the expression that matches tests and subtests by their full names. The testing package takes it apart at "|" and "/" first.
func exactly(names []string) string {
	patterns := make([]string, len(names))
	for i, name := range names {
		patterns[i] = "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
	}
	return strings.Join(patterns, "|")
}

// follow reads the events of a suite until they end, and calls show after each test that ended.
func (r *suiteResult) follow(from io.Reader, show func(ended *testResult)) error {
	byName := map[string]*testResult{}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var e event
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			return fmt.Errorf("reading test events: %w", err)
		}
		if e.Test == "" {
			continue
		}
		t, ok := byName[e.Test]
		if !ok {
			t = &testResult{name: e.Test, outcome: unfinished}
			byName[e.Test] = t
			r.tests = append(r.tests, t)
		}
		switch e.Action {
		case "output":
			t.output.WriteString(e.Output)
		case string(passed), string(failed), string(skipped):
			t.outcome, t.seconds = outcome(e.Action), e.Elapsed
			show(t)
		}
	}
}

// passed reports whether all tests were run and passed, or were skipped for a known reason.
func (r suiteResult) passed(allowed reasons) bool {
	return r.trouble == nil && r.count("") == r.total && !slices.ContainsFunc(r.tests, func(t *testResult) bool {
		return t.outcome == failed || t.outcome == unfinished || t.outcome == skipped && allowed.skips[t.name] == ""
	})
}

// count counts the tests, without subtests, that ended so; all for the empty outcome.
func (r suiteResult) count(o outcome) int {
	n := 0
	for _, t := range r.tests {
		if !t.subtest() && (o == "" || t.outcome == o) {
			n++
		}
	}
	return n
}
