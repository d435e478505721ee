package preflight_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/cmd/weft/preflight"
	"github.com/weft-dev/weft/cmd/weft/settings"
)

func TestPorts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	number := taken.Addr().(*net.TCPAddr).Port
	loopback := netip.MustParseAddr("127.0.0.1")
	tests := []struct {
		name      string
		port      settings.Port
		proxyRuns bool
		// want are parts of the error; none means no error.
		want []string
	}{
		{name: "free", port: settings.Port{Flag: "--http-port", Address: loopback}},
		{
			name: "taken", port: settings.Port{Flag: "--api-port", Number: number, Address: loopback},
			want: []string{fmt.Sprintf("port %d is in use", number), "--api-port", fmt.Sprintf("(pid %d)", os.Getpid())},
		},
		{name: "taken on all addresses", port: settings.Port{Flag: "--http-port", Number: number, Address: netip.IPv4Unspecified(), Proxy: true}, want: []string{"--http-port"}},
		{name: "taken by the proxy to adopt", port: settings.Port{Flag: "--http-port", Number: number, Address: loopback, Proxy: true}, proxyRuns: true},
		{
			name: "not the proxy's although it runs", port: settings.Port{Flag: "--api-port", Number: number, Address: loopback}, proxyRuns: true,
			want: []string{"--api-port"},
		},
		{name: "not an address of this machine", port: settings.Port{Flag: "--http-port", Address: netip.MustParseAddr("192.0.2.1")}, want: []string{"cannot be used"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := preflight.Ports(t.Context(), []settings.Port{test.port}, test.proxyRuns)
			checkError(t, err, test.want)
		})
	}
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		make func(t *testing.T) string
		want []string
	}{
		{name: "made when missing", make: missingDir},
		{
			name: "a file", want: []string{"cannot be written to", "--state-dir"},
			make: aFile,
		},
		{name: "read-only", want: []string{"read-only file system", "--state-dir"}, make: readOnlyDir},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := test.make(t)
			err := preflight.StateDir(dir)
			checkError(t, err, test.want)
			if left, globErr := filepath.Glob(filepath.Join(dir, ".writable-*")); globErr != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, globErr)
			}
		})
	}
}

func missingDir(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "a", "b")
}

func aFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readOnlyDir mounts an empty read-only file system.
func readOnlyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFindBinaries(t *testing.T) {
	everything := []string{"crun", "runc", "weft-proxy", "weft-shim"}
	tests := []struct {
		name    string
		present []string
		want    []string
		// runtime is the name of the one that is taken.
		runtime string
	}{
		{name: "all", present: everything, runtime: "crun"},
		{name: "only runc", present: everything[1:], runtime: "runc"},
		{name: "only the built runc", present: []string{"weft-runc", "weft-proxy", "weft-shim"}, runtime: "weft-runc"},
		{name: "no runtime", present: everything[2:], want: []string{"crun", "PATH"}},
		{name: "no proxy", present: []string{"crun", "weft-shim"}, want: []string{"weft-proxy"}},
		{name: "no shim", present: []string{"crun", "weft-proxy"}, want: []string{"weft-shim"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range test.present {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			got, err := preflight.FindBinaries()
			checkError(t, err, test.want)
			if err == nil && got.Runtime != filepath.Join(dir, test.runtime) {
				t.Errorf("runtime %q, want %q of %q", got.Runtime, test.runtime, dir)
			}
		})
	}
}

// checkError wants no error, or one line with all parts.
func checkError(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("error %v, want none", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}
