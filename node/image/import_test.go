package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tarDir archives a directory.
func tarDir(t *testing.T, dir string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zip(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func writeTemp(t *testing.T, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// newLayout writes an OCI layout of one image.
func newLayout(t *testing.T, img v1.Image, opts ...layout.Option) string {
	t.Helper()
	d := t.TempDir()
	p, err := layout.Write(d, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, opts...); err != nil {
		t.Fatal(err)
	}
	return d
}

func dockerArchive(t *testing.T, images map[string]v1.Image) []byte {
	t.Helper()
	refs := map[name.Reference]v1.Image{}
	for n, img := range images {
		refs[must(name.NewTag(n))] = img
	}
	var buf bytes.Buffer
	if err := tarball.MultiRefWrite(refs, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestImport(t *testing.T) {
	t.Parallel()
	img := newImage(t, layer(t, dir("d"), file("d/a", "1")), layer(t, file("d/.wh.a", ""), file("d/b", "2")))
	foreign := imageFor(t, "linux", "s390x", layer(t, file("a", "1")))
	byContainerd := newLayout(t, img, layout.WithAnnotations(map[string]string{annotationImageName: "docker.io/library/app:v1", annotationRefName: "v1"}))
	byPodman := newLayout(t, img, layout.WithAnnotations(map[string]string{annotationRefName: "localhost/app:v2"}))
	byTag := newLayout(t, img, layout.WithAnnotations(map[string]string{annotationRefName: "v3"}))
	nested := t.TempDir()
	p := must(layout.Write(nested, empty.Index))
	if err := p.AppendIndex(mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: testArch}}},
	), layout.WithAnnotations(map[string]string{annotationImageName: "dev.local/nested:v1"})); err != nil {
		t.Fatal(err)
	}
	saved := dockerArchive(t, map[string]v1.Image{"app:v1": img, "dev.local/app:v2": img})
	tests := []struct {
		name string
		path string
		opts ImportOptions
		want []string
	}{
		{name: "layout directory of containerd", path: byContainerd, want: []string{"docker.io/library/app:v1"}},
		{name: "layout directory of podman", path: byPodman, want: []string{"localhost/app:v2"}},
		{name: "layout with a name given", path: byTag, opts: ImportOptions{Name: "dev.local/given"}, want: []string{"dev.local/given:latest"}},
		{name: "layout with an index", path: nested, want: []string{"dev.local/nested:v1"}},
		{name: "layout tar", path: writeTemp(t, tarDir(t, byContainerd)), want: []string{"docker.io/library/app:v1"}},
		{name: "layout tar.gz", path: writeTemp(t, zip(t, tarDir(t, byContainerd))), want: []string{"docker.io/library/app:v1"}},
		{name: "docker save", path: writeTemp(t, saved), want: []string{"dev.local/app:v2", "docker.io/library/app:v1"}},
		{name: "docker save zipped", path: writeTemp(t, zip(t, saved)), want: []string{"dev.local/app:v2", "docker.io/library/app:v1"}},
		{name: "docker save before 1.10 layers", path: writeTemp(t, oldArchive(t, img)), want: []string{"docker.io/library/old:v1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			names, err := s.Import(t.Context(), tt.path, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, names); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			for _, n := range names {
				got, err := s.Resolve(t.Context(), n)
				if err != nil {
					t.Fatal(err)
				}
				if got.ID != must(img.ConfigName()).String() || got.RepoDigest != "" {
					t.Errorf("%s is %s, %q", n, got.ID, got.RepoDigest)
				}
				if diff := cmp.Diff(map[string]string{"d": "dir", "d/b": "2"}, tree(t, mount(t, got.Layers))); diff != "" {
					t.Errorf("container sees (-want +got):\n%s", diff)
				}
			}
			if left := must(os.ReadDir(s.path(tempDir))); len(left) != 0 {
				t.Errorf("tmp has %v", left)
			}
		})
	}
}

// oldArchive writes a docker archive in which a layer is a link to another place, as docker did for layers that images share.
func oldArchive(t *testing.T, img v1.Image) []byte {
	t.Helper()
	manifest := dockerManifest{Config: "config.json", RepoTags: []string{"old:v1"}}
	entries := []entry{file("config.json", string(must(img.RawConfigFile())))}
	for i, l := range must(img.Layers()) {
		d := "layer" + string(rune('a'+i))
		rc := must(l.Uncompressed())
		entries = append(entries, file("store/"+d, string(must(io.ReadAll(rc)))), link(d+"/layer.tar", "../store/"+d))
		manifest.Layers = append(manifest.Layers, d+"/layer.tar")
	}
	return archive(t, append(entries, file("manifest.json", string(must(json.Marshal([]dockerManifest{manifest})))))...)
}

func TestImportErrors(t *testing.T) {
	t.Parallel()
	img := newImage(t, layer(t, file("a", "1")))
	unnamed := newLayout(t, img)
	corrupt := newLayout(t, img, layout.WithAnnotations(map[string]string{annotationImageName: "dev.local/app"}))
	for _, l := range must(img.Layers()) {
		data := must(readCompressed(layer(t, file("a", "2"))))
		if err := os.WriteFile(filepath.Join(corrupt, layoutPath(must(l.Digest()))), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	forged := newLayout(t, img, layout.WithAnnotations(map[string]string{annotationImageName: "dev.local/app"}))
	if err := os.WriteFile(filepath.Join(forged, layoutPath(must(img.Digest()))), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	escaping := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(escaping, "manifest.json")); err != nil {
		t.Fatal(err)
	}
	two := dockerArchive(t, map[string]v1.Image{"app:v1": img, "app:v2": newImage(t, layer(t, file("a", "2")))})
	tests := []struct {
		name, path, text string
		opts             ImportOptions
		want             error
	}{
		{name: "no file", path: "absent", want: os.ErrNotExist},
		{name: "empty file", path: writeTemp(t, nil), want: ErrNotArchive},
		{name: "text", path: writeTemp(t, []byte(strings.Repeat("text ", 1000))), want: ErrNotArchive},
		{name: "some tar", path: writeTemp(t, archive(t, file("a", "1"))), want: ErrNotArchive},
		{name: "empty directory", path: t.TempDir(), want: ErrNotArchive},
		{name: "layout without a name", path: unnamed, want: ErrInvalidName, text: "a name must be given"},
		{name: "one name for two images", path: writeTemp(t, two), opts: ImportOptions{Name: "x"}, want: ErrInvalidName, text: "2 images"},
		{name: "bad name", path: unnamed, opts: ImportOptions{Name: "X"}, want: ErrInvalidName},
		{name: "layer of other content", path: corrupt, want: ErrCorrupt},
		{name: "manifest of other content", path: forged, want: ErrCorrupt},
		{name: "link out of the directory", path: escaping, text: "escapes"},
		{
			name: "other platform", want: ErrPlatform,
			path: newLayout(t, imageFor(t, "linux", "s390x"), layout.WithAnnotations(map[string]string{annotationImageName: "dev.local/app"})),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			_, err := s.Import(t.Context(), tt.path, tt.opts)
			if err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Import: %v, want %v with %q", err, tt.want, tt.text)
			}
			if images := must(s.List(t.Context())); len(images) != 0 {
				t.Errorf("the store has %v", images)
			}
		})
	}
}
