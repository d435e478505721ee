package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/test/platform"
)

// TestUpDownAndPurge uses a platform of its own, beside the shared one.
func TestUpDownAndPurge(t *testing.T) {
	t.Parallel()
	p, err := platform.Start("e2e-own", 1)
	if err != nil {
		t.Fatal(err)
	}
	purged := false
	t.Cleanup(func() {
		if !purged {
			_ = p.Destroy()
		}
	})
	info, err := os.Stat(filepath.Join(p.StateDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the kubeconfig has mode %o, want 600", mode)
	}

	second := exec.CommandContext(t.Context(), filepath.Join(p.Bin, "weft"), p.Flags...)
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), strconv.Itoa(p.PID())) || strings.Count(strings.TrimSpace(string(out)), "\n") != 0 {
		t.Errorf("a second weft up gave %v, want one line that names the first one's pid %d:\n%s", err, p.PID(), out)
	}

	// The state survives an orderly stop and start.
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept", Namespace: "default"}, Data: map[string]string{"a": "b"}}
	if err := p.Kube.Create(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if out, err := p.Weft("down"); err != nil {
		t.Fatalf("weft down: %v\n%s", err, out)
	}
	<-p.Exited
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	if err := p.Kube.Get(t.Context(), client.ObjectKeyFromObject(kept), kept); err != nil {
		t.Errorf("an object from before the restart: %v", err)
	}
	if out, err := p.Weft("status"); err != nil || !strings.Contains(out, p.StateDir) {
		t.Errorf("weft status gave %v and does not say where the state is:\n%s", err, out)
	}

	if err := p.Destroy(); err != nil {
		t.Fatal(err)
	}
	purged = true
	assertNothingLeft(t, p)
}

func assertNothingLeft(t *testing.T, p *platform.Platform) {
	t.Helper()
	if _, err := netlink.LinkByName(p.Name + "0"); err == nil {
		t.Errorf("the bridge %s0 is left", p.Name)
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if table.Name == p.Name || strings.HasPrefix(table.Name, p.Name+"-") {
			t.Errorf("the nftables table %s is left", table.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), p.StateDir) {
		t.Errorf("mounts below %s are left", p.StateDir)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + p.Name, "/sys/fs/cgroup/*/" + p.Name} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %v, %v", left, err)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		if cmdline, err := os.ReadFile(path); err == nil && strings.Contains(string(cmdline), p.StateDir) {
			t.Errorf("a process is left: %s", strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
}

func TestUpRefusesWithOneLine(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		flags      []string
	}{
		{"port in use", "--api-port", []string{"--state-dir", t.TempDir(), "--name", "e2e-no", "--api-port", taken}},
		{"state directory is a file", file, []string{"--state-dir", file, "--name", "e2e-no"}},
		{"bad name", "name", []string{"--state-dir", t.TempDir(), "--name", "Not Good"}},
		{"overlapping networks", "overlap", []string{"--state-dir", t.TempDir(), "--name", "e2e-no", "--pod-cidr", "10.1.0.0/16", "--service-cidr", "10.1.2.0/24"}},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(shared.Bin, "weft"), append([]string{"up"}, tc.flags...)...)
		out, err := cmd.CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(lines[len(lines)-1], tc.want) || len(lines) != 1 {
			t.Errorf("%s: exit code %d, want 1 and one line that names %q:\n%s", tc.name, cmd.ProcessState.ExitCode(), tc.want, out)
		}
	}
}
