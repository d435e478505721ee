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
	case v1.HostPathUnset, v1.HostPathDirectoryOrCreate:
		if !exists { // a missing source of a bind mount is made, as container runtimes do
			return makeDir(h.Path)
		}
		return typed(kind == v1.HostPathUnset || info.IsDir(), h.Path, "a directory")
	case v1.HostPathFileOrCreate:
		if !exists {
			return touch(h.Path)
		}
		return typed(info.Mode().IsRegular(), h.Path, "a file")
	}
	want, ok := hostPathTypes()[kind]
	if !ok {
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	return typed(exists && info.Mode().Type() == want.mode, h.Path, want.name)
}

// hostPathType is a kind of file that must exist.
type hostPathType struct {
	mode fs.FileMode
	name string
}

func hostPathTypes() map[v1.HostPathType]hostPathType {
	return map[v1.HostPathType]hostPathType{
		v1.HostPathDirectory: {fs.ModeDir, "a directory"},
		v1.HostPathFile:      {0, "a file"},
		v1.HostPathSocket:    {fs.ModeSocket, "a socket file"},
		v1.HostPathCharDev:   {fs.ModeDevice | fs.ModeCharDevice, "a character device"},
		v1.HostPathBlockDev:  {fs.ModeDevice, "a block device"},
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
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("making host path %q: %w", path, err)
	}
	return f.Close() //nolint:wrapcheck // an empty file has nothing to lose
}
