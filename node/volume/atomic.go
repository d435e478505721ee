package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names of the scheme by which kubelet replaces all files of a volume at once: each file that users see is a link into
// dataLink, which is a link to a directory with the present content. Replacing that one link is atomic.
const (
	dataLink    = "..data"
	dataLinkTmp = "..data_tmp"
)

// writeAtomic makes dir show exactly files. It does nothing when it does already.
func writeAtomic(dir string, files map[string]file, group *int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the volume: %w", err)
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the link to the data: %w", err)
	}
	if old != "" && same(filepath.Join(dir, old), files) {
		return nil
	}
	content, err := os.MkdirTemp(dir, "..2")
	if err != nil {
		return fmt.Errorf("making a directory for the data: %w", err)
	}
	if err := writeFiles(content, files); err != nil {
		_ = os.RemoveAll(content)
		return err
	}
	if err := own(dir, content, group, true); err != nil {
		_ = os.RemoveAll(content)
		return err
	}
	if err := swap(dir, filepath.Base(content), files); err != nil {
		return err
	}
	return clean(dir, filepath.Base(content), files)
}

func writeFiles(dir string, files map[string]file) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("setting the mode of the data: %w", err)
	}
	for name, f := range files {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("making a directory for %q: %w", name, err)
		}
		if err := os.WriteFile(target, f.data, fs.FileMode(f.mode)); err != nil {
			return fmt.Errorf("writing %q: %w", name, err)
		}
		if err := os.Chmod(target, fs.FileMode(f.mode)); err != nil {
			return fmt.Errorf("setting the mode of %q: %w", name, err)
		}
	}
	return nil
}

// swap points the data link to content and adds links for the files that are new.
func swap(dir, content string, files map[string]file) error {
	tmp := filepath.Join(dir, dataLinkTmp)
	_ = os.Remove(tmp) // left by a crash
	if err := os.Symlink(content, tmp); err != nil {
		return fmt.Errorf("linking the data: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return fmt.Errorf("replacing the data: %w", err)
	}
	for name := range files {
		first, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		err := os.Symlink(filepath.Join(dataLink, first), filepath.Join(dir, first))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linking %q: %w", first, err)
		}
	}
	return nil
}

// clean removes what the volume no longer shows.
func clean(dir, content string, files map[string]file) error {
	keep := map[string]bool{dataLink: true, content: true}
	for name := range files {
		first, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		keep[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the volume: %w", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("removing old data: %w", err)
		}
	}
	return nil
}

// same reports whether dir holds exactly files with their modes as they were written; ownership changes only group bits.
func same(dir string, files map[string]file) bool {
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return fmt.Errorf("relating %q: %w", path, err)
		}
		want, ok := files[rel]
		if !ok {
			return fs.ErrNotExist
		}
		got, err := os.ReadFile(path) //nolint:gosec // below the volume
		if err != nil {
			return fmt.Errorf("reading %q: %w", path, err)
		}
		if !bytes.Equal(got, want.data) {
			return fs.ErrNotExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}
