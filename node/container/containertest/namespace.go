package containertest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/weft-dev/weft/node/container"
)

// namespaces sees that a container joins what it is told to.
func (h Harness) namespaces(t *testing.T) {
	t.Helper()
	tests := []struct {
		name string
		flag int
		join func(s *container.Spec, path string)
	}{
		{name: "net", flag: syscall.CLONE_NEWNET, join: func(s *container.Spec, path string) { s.NetNS = path }},
		{name: "ipc", flag: syscall.CLONE_NEWIPC, join: func(s *container.Spec, path string) { s.IPCNS = path }},
		{name: "uts", flag: syscall.CLONE_NEWUTS, join: func(s *container.Spec, path string) { s.UTSNS = path }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := namespace(t, tt.name, tt.flag)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%s:[%d]\n", tt.name, info.Sys().(*syscall.Stat_t).Ino)
			spec := h.spec(t, "link", "/proc/self/ns/"+tt.name)
			tt.join(&spec, path)
			if _, out := run(t, h.New(t), spec); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}

// namespace makes one and binds it to a file until the end of the test.
func namespace(t *testing.T, name string, flag int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := syscall.Unshare(flag)
		if err == nil {
			err = syscall.Mount("/proc/thread-self/ns/"+name, path, "", syscall.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}
