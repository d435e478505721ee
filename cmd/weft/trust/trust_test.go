package trust_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-dev/weft/cmd/weft/trust"
)

// store is one in a directory of the test, with a command that adds a line to the file "runs" each time.
func store(t *testing.T, script string) (s trust.Store, runs func() int) {
	t.Helper()
	dir := t.TempDir()
	command := filepath.Join(dir, "update")
	if err := os.WriteFile(command, []byte("#!/bin/sh\necho x $* >>"+filepath.Join(dir, "runs")+"\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return trust.Store{Dir: filepath.Join(dir, "roots"), Command: command}, func() int {
		data, _ := os.ReadFile(filepath.Join(dir, "runs"))
		return strings.Count(string(data), "\n")
	}
}

func TestInstallAndRemove(t *testing.T) {
	t.Parallel()
	s, runs := store(t, "")
	steps := []struct {
		name    string
		do      func() (bool, error)
		changed bool
		content string
		runs    int
	}{
		{"remove what is not there", func() (bool, error) { return s.Remove(t.Context(), "weft") }, false, "", 0},
		{"install", func() (bool, error) { return s.Install(t.Context(), "weft", []byte("root")) }, true, "root", 1},
		{"again", func() (bool, error) { return s.Install(t.Context(), "weft", []byte("root")) }, false, "root", 1},
		{"another", func() (bool, error) { return s.Install(t.Context(), "weft", []byte("new")) }, true, "new", 2},
		{"remove of another platform", func() (bool, error) { return s.Remove(t.Context(), "test") }, false, "new", 2},
		{"remove", func() (bool, error) { return s.Remove(t.Context(), "weft") }, true, "", 3},
	}
	for _, step := range steps {
		changed, err := step.do()
		content, _ := os.ReadFile(s.Path("weft"))
		if err != nil || changed != step.changed || string(content) != step.content || runs() != step.runs {
			t.Errorf("%s: changed %t, %v, content %q, %d runs; want %t, %q, %d", step.name, changed, err, content, runs(), step.changed, step.content, step.runs)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	missing := trust.Store{Dir: t.TempDir(), Command: filepath.Join(t.TempDir(), "nothing")}
	if _, err := missing.Install(t.Context(), "weft", []byte("root")); !errors.Is(err, trust.ErrNoStore) {
		t.Errorf("without the command: %v", err)
	}
	if _, err := os.Stat(missing.Path("weft")); err == nil {
		t.Error("a root was left where nothing reads it")
	}
	failing, _ := store(t, "echo 'no room'\nexit 3\n")
	if _, err := failing.Install(t.Context(), "weft", []byte("root")); err == nil || !strings.Contains(err.Error(), "exit status 3: no room") {
		t.Errorf("with a command that fails: %v", err)
	}
}
