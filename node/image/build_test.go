package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// run runs an image's entrypoint in a container and returns what it prints.
func run(t *testing.T, img Image) string {
	t.Helper()
	bundle := t.TempDir()
	spec := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: mount(t, img.Layers)},
		Process: &specs.Process{
			Args: img.Config.Entrypoint, Env: img.Config.Env, Cwd: "/", User: specs.User{UID: nonroot, GID: nonroot},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}},
		},
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), must(json.Marshal(spec)), 0o600); err != nil {
		t.Fatal(err)
	}
	id := "image-test-" + filepath.Base(filepath.Dir(bundle)) + filepath.Base(bundle)
	// crun refuses a hybrid of cgroup versions whose version 2 has any controller, so it is run where it sees version 1 alone.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `umount /sys/fs/cgroup/unified 2>/dev/null; exec crun "$@"`,
		"crun", "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("running the image: %v\n%s", err, out)
	}
	return string(out)
}

func TestBuildRuns(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	opts := BuildOptions{Name: "tiny:v1", Package: "testdata/tiny", Env: []string{"COLOUR=blue"}}
	img, err := s.Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != "dev.local/tiny:v1" || img.RepoDigest != "" || img.Config.User != "65532" {
		t.Errorf("built %s, %q, user %s", img.Name, img.RepoDigest, img.Config.User)
	}
	if got, want := run(t, img), "hello from kodata\nuid 65532, colour blue\n"; got != want {
		t.Errorf("the program printed %q, want %q", got, want)
	}
	shown := tree(t, mount(t, img.Layers))
	for _, p := range []string{"etc/passwd", "etc/group", "tmp", "ko-app/tiny", "var/run/ko/greeting.txt"} {
		if _, ok := shown[p]; !ok {
			t.Errorf("the image has no %s", p)
		}
	}
	again, err := newStore(t).Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != img.ID {
		t.Errorf("built again in another store: %s, before %s", again.ID, img.ID)
	}
}

func TestBuildOnBase(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	// /var/run is a link in most distributions, and the program's data is below it.
	base := newImage(t, layer(t, dir("run"), dir("var"), link("var/run", "/run"), owned("tmp", 0o1777, 0), file("marker", "base")))
	ref := reg.push(t, "base:v1", base)
	s := newStore(t)
	img, err := s.Build(t.Context(), BuildOptions{Name: reg.host + "/tiny", Package: "testdata/tiny", BaseImage: ref})
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Layers) != 2 || img.Name != reg.host+"/tiny:latest" {
		t.Errorf("built %s of layers %v", img.Name, img.Layers)
	}
	shown := tree(t, mount(t, img.Layers))
	if shown["marker"] != "base" || shown["var/run"] != "-> /run" || shown["run/ko/greeting.txt"] == "" {
		t.Errorf("container sees marker %q, var/run %q, data %q", shown["marker"], shown["var/run"], shown["run/ko/greeting.txt"])
	}
	if got := run(t, img); !strings.HasPrefix(got, "hello from kodata\nuid 65532") {
		t.Errorf("the program printed %q", got)
	}
}

func TestBuildImportPath(t *testing.T) {
	t.Parallel()
	const pkg = "github.com/weft-dev/weft/node/image/testdata/tiny"
	s := newStore(t)
	byDir, err := s.Build(t.Context(), BuildOptions{Name: "tiny", Package: "testdata/tiny"})
	if err != nil {
		t.Fatal(err)
	}
	byPath, err := s.Build(t.Context(), BuildOptions{Name: "tiny", Package: pkg})
	if err != nil {
		t.Fatal(err)
	}
	if byPath.ID != byDir.ID {
		t.Errorf("built by import path %s, by directory %s", byPath.ID, byDir.ID)
	}
}

func TestBuildLayout(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	opts := BuildOptions{Name: "tiny:v1", Package: "testdata/tiny", Layout: filepath.Join(t.TempDir(), "out")}
	written, err := s.Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), written.Name); !errors.Is(err, ErrNeverPull) {
		t.Errorf("the store resolves %s: %v, want %v", written.Name, err, ErrNeverPull)
	}
	names, err := s.Import(t.Context(), opts.Layout, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dev.local/tiny:v1"}, names); diff != "" {
		t.Errorf("names in the layout (-want +got):\n%s", diff)
	}
	imported, err := s.Resolve(t.Context(), written.Name)
	if err != nil || imported.ID != written.ID || imported.Size != written.Size {
		t.Errorf("imported %+v, %v; written %+v", imported, err, written)
	}
	if _, err := s.Build(t.Context(), opts); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("writing to the same directory again: %v, want %v", err, ErrNotEmpty)
	}
}

func TestBuildErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, image, dir, base, text string
		want                         error
	}{
		{name: "does not compile", image: "app", dir: "testdata/broken", want: ErrBuild, text: "undefined: undefined"},
		{name: "library", image: "app", dir: "testdata/library", want: ErrBuild, text: "not a main package"},
		{name: "no directory", image: "app", dir: "testdata/absent", want: ErrBuild, text: "absent"},
		{name: "bad name", image: "UPPER", dir: "testdata/tiny", want: ErrInvalidName},
		{name: "no name", dir: "testdata/tiny", want: ErrInvalidName},
		{name: "digest", image: "app@sha256:" + strings.Repeat("0", 64), dir: "testdata/tiny", want: ErrInvalidName},
		{name: "no package", image: "app", dir: "example.com/absent", want: ErrBuild, text: "neither a directory nor a package"},
		{name: "no base", image: "app", dir: "testdata/tiny", base: "dev.local/absent", want: ErrNeverPull},
	}
	s := newStore(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := s.Build(t.Context(), BuildOptions{Name: tt.image, Package: tt.dir, BaseImage: tt.base})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Build: %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(s.path(tempDir)); err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) != 0 {
			t.Errorf("tmp has %v, %v", left, err)
		}
	})
}

func TestBuildName(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"hello": "dev.local/hello", "hello:v1": "dev.local/hello:v1", "team/hello": "dev.local/team/hello",
		"dev.local/hello": "dev.local/hello", "localhost:5000/a": "localhost:5000/a", "localhost/a": "localhost/a", "ghcr.io/a/b": "ghcr.io/a/b",
	}
	got := map[string]string{}
	for n := range want {
		got[n] = BuildName(n)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("BuildName (-want +got):\n%s", diff)
	}
}
