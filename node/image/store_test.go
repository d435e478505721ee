package image

import (
	"archive/tar"
	"bytes"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// newStore opens a store in a directory of the test.
func newStore(t *testing.T) *Store {
	t.Helper()
	return openStore(t, t.TempDir())
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testRegistry is a registry on loopback that counts requests.
type testRegistry struct {
	host string
	// wrap, when set, may answer a request itself.
	wrap func(w http.ResponseWriter, r *http.Request) bool

	mu   sync.Mutex
	seen map[string]int
}

func newRegistry(t *testing.T, wrap func(w http.ResponseWriter, r *http.Request) bool) *testRegistry {
	t.Helper()
	reg := &testRegistry{wrap: wrap, seen: map[string]int{}}
	inner := registry.New(registry.Logger(nopLog()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reg.mu.Lock()
		reg.seen[r.Method+" "+r.URL.Path]++
		reg.mu.Unlock()
		if reg.wrap != nil && reg.wrap(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	reg.host = strings.TrimPrefix(srv.URL, "http://")
	return reg
}

// blobGets returns how often each blob was fetched.
func (r *testRegistry) blobGets() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int{}
	for k, n := range r.seen {
		if strings.HasPrefix(k, "GET ") && strings.Contains(k, "/blobs/") {
			out[k[strings.LastIndex(k, "/")+1:]] = n
		}
	}
	return out
}

// forget starts counting anew.
func (r *testRegistry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.seen)
}

// requests returns what was asked since forget.
func (r *testRegistry) requests() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen)
}

func (r *testRegistry) push(t *testing.T, ref string, img v1.Image) string {
	t.Helper()
	parsed, err := name.ParseReference(r.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(parsed, img); err != nil {
		t.Fatal(err)
	}
	return parsed.Name()
}

// entry is a tar entry of a test layer.
type entry struct {
	tar.Header
	body string
}

func file(n, body string) entry {
	return entry{tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func dir(n string) entry {
	return entry{tar.Header{Name: n + "/", Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func link(n, to string) entry {
	return entry{tar.Header{Name: n, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}, ""}
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.body))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func layer(t *testing.T, entries ...entry) v1.Layer {
	t.Helper()
	data := archive(t, entries...)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newImage makes an image for this machine.
func newImage(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	return imageFor(t, "linux", testArch, layers...)
}

func imageFor(t *testing.T, os, arch string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = os, arch
	file.Config.Entrypoint = []string{"/app"}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// mount shows an image as a container would see it. Like the product it names each layer by itself, since the options of the older
// call have room for a few dozen layers only.
func mount(t *testing.T, layers []string) string {
	t.Helper()
	base := t.TempDir()
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fs := must(unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC))
	defer func() { _ = unix.Close(fs) }()
	set := func(key, value string) {
		t.Helper()
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			t.Fatalf("setting %s to %s: %v", key, value, err)
		}
	}
	for _, l := range slices.Backward(layers) {
		set("lowerdir+", l)
	}
	set("upperdir", filepath.Join(base, "upper"))
	set("workdir", filepath.Join(base, "work"))
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatalf("making overlay of %v: %v", layers, err)
	}
	fd := must(unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0))
	defer func() { _ = unix.Close(fd) }()
	merged := filepath.Join(base, "merged")
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, merged, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatalf("mounting: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return merged
}

// tree lists what is below dir, with contents of files and targets of links.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch {
		case fi.IsDir():
			out[rel] = "dir"
		case fi.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			out[rel] = "-> " + to
			return err
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(p)
			out[rel] = string(data)
			return err
		default:
			out[rel] = fi.Mode().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually polls a condition of another process or of the kernel.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waiting for %s: not in time", what)
		case <-tick.C:
		}
	}
}
