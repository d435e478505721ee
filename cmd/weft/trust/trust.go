// Package trust makes the programs of this machine believe in the certificates of a platform, and undoes that. Commands weft trust and
// weft down --purge use it. It knows the store of Debian and its relatives, which is a directory and a command, and
// imports nothing else of Weft.
package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// Dir is where Debian expects roots of the machine's own.
	Dir = "/usr/local/share/ca-certificates"
	// Command makes the store that programs read from Dir and the distribution's own roots.
	Command = "update-ca-certificates"
)

// ErrNoStore is returned where Command is missing.
var ErrNoStore = errors.New("this machine has no " + Command)

// Store is the set of roots that programs of this machine trust.
type Store struct {
	// Dir is Dir by default, and Command is Command, found in PATH.
	Dir, Command string
}

func (s Store) withDefaults() Store {
	if s.Dir == "" {
		s.Dir = Dir
	}
	if s.Command == "" {
		s.Command = Command
	}
	return s
}

// Path is where the root of the platform of a name is, when it is installed.
func (s Store) Path(name string) string {
	return filepath.Join(s.withDefaults().Dir, "weft-"+name+".crt")
}

// Install adds the root of a platform, or puts it in the place of another of the same name. It reports whether that changed anything.
func (s Store) Install(ctx context.Context, name string, root []byte) (changed bool, err error) {
	s = s.withDefaults()
	command, err := exec.LookPath(s.Command)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoStore, err)
	}
	present, err := os.ReadFile(s.Path(name))
	if err == nil && bytes.Equal(present, root) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the installed root: %w", err)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return false, fmt.Errorf("making the directory of roots: %w", err)
	}
	if err := os.WriteFile(s.Path(name), root, 0o644); err != nil {
		return false, fmt.Errorf("installing the root: %w", err)
	}
	return true, update(ctx, command)
}

// Remove takes the root of a platform out again. It reports whether there was one.
func (s Store) Remove(ctx context.Context, name string) (changed bool, err error) {
	s = s.withDefaults()
	err = os.Remove(s.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing the root: %w", err)
	}
	command, err := exec.LookPath(s.Command)
	if err != nil {
		return true, fmt.Errorf("%w: %w", ErrNoStore, err)
	}
	// Without the flag, links to the file stay.
	return true, update(ctx, command, "--fresh")
}

func update(ctx context.Context, command string, args ...string) error {
	if out, err := exec.CommandContext(ctx, command, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", Command, err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}
