package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// own gives a tree to the pod's fsGroup, nil for none: files become readable by the group, and writable unless readOnly; new
// files in directories inherit the group. root itself is treated like the directories below content.
func own(root, content string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	if err := ownOne(root, *group, readOnly); err != nil {
		return err
	}
	return filepath.WalkDir(content, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("walking the volume: %w", err)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		return ownOne(path, *group, readOnly)
	})
}

func ownOne(path string, group int64, readOnly bool) error {
	if err := os.Lchown(path, -1, int(group)); err != nil {
		return fmt.Errorf("giving the volume to group %d: %w", group, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading the mode of the volume: %w", err)
	}
	add := fs.FileMode(0o660)
	if readOnly {
		add = 0o440
	}
	mode := info.Mode()
	if info.IsDir() {
		add |= 0o110
		mode |= fs.ModeSetgid
	}
	if err := os.Chmod(path, mode|add); err != nil {
		return fmt.Errorf("setting the mode of the volume: %w", err)
	}
	return nil
}
