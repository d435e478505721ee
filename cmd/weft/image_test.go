package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/node/image"
)

// imageCommand runs `weft image` on a state directory and returns what it prints.
func imageCommand(t *testing.T, state string, args ...string) (string, error) {
	t.Helper()
	cmd := newImageCommand(func() string { return state })
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// emptyArchive writes a docker archive, unpacked, of an image without layers.
func emptyArchive(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for n, body := range map[string]string{
		"manifest.json": `[{"Config":"config.json","RepoTags":["dev.local/empty:v1"],"Layers":[]}]`,
		"config.json":   `{"config":{"Entrypoint":["/app"]},"rootfs":{"type":"layers","diff_ids":[]}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestImageCommands(t *testing.T) {
	t.Parallel()
	state, archive := t.TempDir(), emptyArchive(t)
	steps := []struct {
		name string
		args []string
		want string
		fail string
	}{
		{name: "import", args: []string{"import", archive}, want: "imported dev.local/empty:v1\n"},
		{name: "tag", args: []string{"tag", "dev.local/empty:v1", "dev.local/empty:v2"}},
		{name: "import under a name", args: []string{"import", archive, "--name", "other/one"}, want: "imported docker.io/other/one:latest\n"},
		{name: "remove", args: []string{"rm", "other/one", "dev.local/empty:v1"}, want: "removed docker.io/other/one:latest\nremoved dev.local/empty:v1\n"},
		{name: "remove again", args: []string{"rm", "dev.local/empty:v1"}, fail: "not present"},
		{name: "pull of a local image", args: []string{"pull", "dev.local/absent"}, fail: "weft image build"},
		{name: "two files, one name", args: []string{"import", archive, archive, "--name", "app"}, fail: "several files"},
		{name: "no file", args: []string{"import", "absent"}, fail: "no such file"},
		{name: "build of nothing", args: []string{"build", "app", filepath.Join(archive, "absent")}, fail: "absent"},
		{name: "prune", args: []string{"prune"}, want: "removed 0 layers and 0 blobs\n"},
	}
	for _, st := range steps { // each builds on the one before
		out, err := imageCommand(t, state, st.args...)
		if st.fail != "" {
			if err == nil || !strings.Contains(err.Error(), st.fail) {
				t.Errorf("%s: %v, want an error with %q", st.name, err, st.fail)
			}
			continue
		}
		if err != nil || out != st.want {
			t.Errorf("%s: %q, %v; want %q", st.name, out, err, st.want)
		}
	}
	out, err := imageCommand(t, state, "ls")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "dev.local/empty:v2 ") {
		t.Errorf("ls printed\n%s", out)
	}
}

func TestImageHelpTouchesNothing(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state")
	for _, args := range [][]string{{"--help"}, {"build", "--help"}, {"import", "--help"}, {"ls", "--help"}, {"pull", "--help"}, {"rm", "--help"}} {
		out, err := imageCommand(t, state, args...)
		if err != nil || !strings.Contains(out, "image") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("--help made %s: %v", state, err)
	}
}

func TestPrintImages(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	images := []image.Listed{
		{ID: "sha256:0123456789abcdef", Names: []string{"dev.local/a:v1", "ghcr.io/a@sha256:00"}, Size: 6280000, Added: now.Add(-90 * time.Second)},
		{ID: "sha256:fedcba9876543210", Names: []string{"ghcr.io/b@sha256:11"}, Size: 12, Added: now.Add(-72 * time.Hour)},
	}
	tests := []struct {
		name           string
		quiet, digests bool
		want           string
	}{
		{name: "tags", want: `NAME                  ID             SIZE      ADDED
dev.local/a:v1        0123456789ab   6.28 MB   1m ago
ghcr.io/b@sha256:11   fedcba987654   12 B      3d ago
`},
		{name: "digests", digests: true, want: `NAME                  ID             SIZE      ADDED
dev.local/a:v1        0123456789ab   6.28 MB   1m ago
ghcr.io/a@sha256:00   0123456789ab   6.28 MB   1m ago
ghcr.io/b@sha256:11   fedcba987654   12 B      3d ago
`},
		{name: "quiet", quiet: true, want: "0123456789ab\nfedcba987654\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := printImages(&out, images, tt.quiet, tt.digests, now); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProgressPrinter(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		terminal bool
		want     string
	}{
		{"log", false, "pulling a: 1/2 layers, 500 kB of 1 MB\npulling a: 2/2 layers, 1 MB of 1 MB\n"},
		{"terminal", true, "\r\x1b[Kpulling a: 0/2 layers, 100 kB of 1 MB\r\x1b[Kpulling a: 1/2 layers, 500 kB of 1 MB" +
			"\r\x1b[Kpulling a: 2/2 layers, 1 MB of 1 MB\r\x1b[K"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			p := &progressPrinter{w: &out, terminal: tt.terminal}
			report := p.step("pulling a")
			for _, at := range []image.Progress{{Bytes: 1e5, Layers: 0}, {Bytes: 5e5, Layers: 1}, {Bytes: 1e6, Layers: 2}} {
				at.TotalBytes, at.TotalLayers = 1e6, 2
				report(at)
			}
			p.end()
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
		})
	}
}
