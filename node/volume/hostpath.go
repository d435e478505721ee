package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"
)

// checkHostPath makes or checks the path as its type asks. The messages are kubelet's.
func checkHostPath(h *v1.HostPathVolumeSource) error {
	kind := v1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	info, err := os.Stat(h.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading host path %q: %w", h.Path, err)
	}
	exists := err == nil
	switch kind {
	case v1.HostPathUnset:
		if !exists {
			return makeDir(h.Path) // as container runtimes do for a missing source of a bind mount
		}
		return nil
	case v1.HostPathDirectoryOrCreate:
		if !exists {
			return makeDir(h.Path)
		}
		return typed(info.IsDir(), h.Path, "a directory")
	case v1.HostPathFileOrCreate:
		if !exists {
			return touch(h.Path)
		}
		return typed(info.Mode().IsRegular(), h.Path, "a file")
	case v1.HostPathDirectory:
		return typed(exists && info.IsDir(), h.Path, "a directory")
	case v1.HostPathFile:
		return typed(exists && info.Mode().IsRegular(), h.Path, "a file")
	case v1.HostPathSocket:
		return typed(exists && info.Mode()&fs.ModeSocket != 0, h.Path, "a socket file")
	case v1.HostPathCharDev:
		return typed(exists && info.Mode()&fs.ModeCharDevice != 0, h.Path, "a character device")
	case v1.HostPathBlockDev:
		return typed(exists && info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0, h.Path, "a block device")
	default:
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
}

func typed(ok bool, path, want string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("hostPath type check failed: %s is not %s", path, want)
}

func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("making host path %q: %w", path, err)
	}
	return nil
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE, 0o644) //nolint:gosec // the API's documented mode
	if err != nil {
		return fmt.Errorf("making host path %q: %w", path, err)
	}
	return f.Close() //nolint:wrapcheck // an empty file has nothing to lose
}
