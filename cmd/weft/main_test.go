package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weft-dev/weft/cmd/weft/settings"
)

// TestMain lets the scripts run this test binary as weft.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"weft": main,
	})
}

// TestScripts runs testdata/*.txtar: what the commands print, and that whatever a user can do wrong is one line and exit code 1.
// None of them gets as far as starting a control plane.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("WEFT_STATE_DIR", env.WorkDir+"/state")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"oneline":   oneLine,
			"takeport":  takePort,
			"lockstate": lockState,
			"takename":  takeName,
		},
	})
}

// oneLine asserts that the last command printed exactly one line on standard error.
func oneLine(ts *testscript.TestScript, neg bool, _ []string) {
	text := ts.ReadFile("stderr")
	lines := 0
	for _, c := range text {
		if c == '\n' {
			lines++
		}
	}
	if neg != (lines != 1) {
		ts.Fatalf("standard error has %d lines:\n%s", lines, text)
	}
}

// takePort listens on a free port until the script ends and puts its number into an environment variable.
func takePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// takeName holds a name of platforms until the script ends, as a platform with another state directory does.
func takeName(ts *testscript.TestScript, _ bool, args []string) {
	s := settings.Default()
	s.StateDir, s.Name = ts.MkAbs("elsewhere"), args[0]
	ts.Check(os.MkdirAll(s.StateDir, 0o700))
	lock, err := s.Acquire(context.Background())
	ts.Check(err)
	ts.Defer(func() { ts.Check(lock.Release()) })
}

// lockState holds the state directory of the script, as a running weft does, and puts the pid into an environment variable.
func lockState(ts *testscript.TestScript, _ bool, args []string) {
	s := settings.Default()
	s.StateDir = ts.Getenv("WEFT_STATE_DIR")
	s.Name = "t" + strconv.FormatInt(int64(os.Getpid()), 36)
	ts.Check(os.MkdirAll(s.StateDir, 0o700))
	lock, err := s.Acquire(context.Background())
	ts.Check(err)
	ts.Defer(func() { ts.Check(lock.Release()) })
	ts.Setenv(args[0], fmt.Sprint(os.Getpid()))
}
