package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

const testArch = runtime.GOARCH

func nopLog() *log.Logger { return log.New(io.Discard, "", 0) }

// must returns a value that the test itself made.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestPullByTagAndDigest(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	img := newImage(t,
		layer(t, dir("etc"), file("etc/a", "1"), file("etc/b", "1"), dir("opt"), file("opt/old", "1")),
		layer(t, file("etc/.wh.a", ""), dir("opt"), file("opt/.wh..wh..opq", ""), file("opt/new", "2")))
	ref := reg.push(t, "team/app:v1", img)
	s := newStore(t)
	ctx := t.Context()
	got, err := s.Pull(ctx, ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := must(img.ConfigName())
	byDigest := reg.host + "/team/app@" + must(img.Digest()).String()
	want := Image{Name: ref, ID: config.String(), RepoDigest: byDigest, Config: v1.Config{Entrypoint: []string{"/app"}}, Layers: got.Layers, Size: got.Size}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Pull (-want +got):\n%s", diff)
	}
	if len(got.Layers) != 2 || got.Size == 0 {
		t.Errorf("Pull: layers %v, size %d", got.Layers, got.Size)
	}
	for _, r := range []string{ref, byDigest, ref + "@" + must(img.Digest()).String(), config.String(), config.Hex[:12]} {
		again, err := s.Resolve(ctx, r)
		if err != nil {
			t.Fatalf("Resolve(%q): %v", r, err)
		}
		if again.ID != config.String() || again.RepoDigest != byDigest {
			t.Errorf("Resolve(%q) = %s, %s; want %s, %s", r, again.ID, again.RepoDigest, config, byDigest)
		}
	}
	shown := map[string]string{"etc": "dir", "etc/b": "1", "opt": "dir", "opt/new": "2"}
	if diff := cmp.Diff(shown, tree(t, mount(t, got.Layers))); diff != "" {
		t.Errorf("container sees (-want +got):\n%s", diff)
	}
}

func TestPullMovedTag(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	s := newStore(t)
	ctx := t.Context()
	shared := layer(t, file("base", "b"))
	first := newImage(t, shared, layer(t, file("v", "1")))
	second := newImage(t, shared, layer(t, file("v", "2")))
	ref := reg.push(t, "app:latest", first)
	if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	reg.push(t, "app:latest", second)
	got, err := s.Pull(ctx, ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := must(second.ConfigName()).String(); got.ID != want {
		t.Errorf("second pull: %s, want %s", got.ID, want)
	}
	old, err := s.Resolve(ctx, reg.host+"/app@"+must(first.Digest()).String())
	if err != nil || old.ID != must(first.ConfigName()).String() {
		t.Errorf("the first image by digest: %s, %v", old.ID, err)
	}
	if n := reg.blobGets()[must(shared.Digest()).String()]; n != 1 {
		t.Errorf("the shared layer was fetched %d times, want once", n)
	}
}

// Pods with the pull policy Always ask at each start; when nothing changed, that must cost no more than a HEAD.
func TestPullUnchanged(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	s := newStore(t)
	ref := reg.push(t, "app:v1", newImage(t, layer(t, file("a", "1"))))
	first, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reg.forget()
	again, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("second pull (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"GET /v2/": 1, "HEAD /v2/app/manifests/v1": 1}, reg.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	// The layer went although the index has it, as when somebody cleaned up by hand: a store opened later mends that.
	if err := os.RemoveAll(first.Layers[0]); err != nil {
		t.Fatal(err)
	}
	later := openStore(t, s.dir)
	if _, err := later.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.Layers[0]); err != nil {
		t.Errorf("after pulling again: %v", err)
	}
}

func TestPullZstd(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	zw := must(zstd.NewWriter(&buf))
	must(zw.Write(archive(t, file("a", strings.Repeat("zstd", 10000)))))
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	plain := layer(t, file("a", strings.Repeat("zstd", 10000)))
	img := newImage(t, compressedLayer{static.NewLayer(buf.Bytes(), types.OCILayerZStd), plain})
	reg := newRegistry(t, nil)
	got, err := newStore(t).Pull(t.Context(), reg.push(t, "zstd:v1", img), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(got.Layers[0] + "/a"); err != nil || string(data) != strings.Repeat("zstd", 10000) {
		t.Errorf("file has %d bytes, %v", len(data), err)
	}
}

// compressedLayer is a layer whose compressed form is another's.
type compressedLayer struct {
	v1.Layer
	plain v1.Layer
}

func (c compressedLayer) DiffID() (v1.Hash, error) { return c.plain.DiffID() }

func TestPullSelectsPlatform(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	mine := newImage(t, layer(t, file("a", "mine")))
	other := imageFor(t, "linux", "s390x", layer(t, file("a", "other")))
	windows := imageFor(t, "windows", testArch, layer(t, file("a", "windows")))
	add := func(img v1.Image, os, arch string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}}
	}
	both := mutate.AppendManifests(empty.Index, add(other, "linux", "s390x"), add(windows, "windows", testArch), add(mine, "linux", testArch))
	none := mutate.AppendManifests(empty.Index, add(other, "linux", "s390x"), add(windows, "windows", testArch))
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: both})
	for n, idx := range map[string]v1.ImageIndex{"both": both, "none": none, "nested": nested} {
		if err := remote.WriteIndex(must(name.ParseReference(reg.host+"/"+n+":v1")), idx); err != nil {
			t.Fatal(err)
		}
	}
	reg.push(t, "single:v1", other)
	tests := []struct {
		name, ref string
		wantErr   error
		wantText  string
	}{
		{name: "index", ref: "both:v1"},
		{name: "nested index", ref: "nested:v1"},
		{name: "index by digest", ref: "both@" + must(both.Digest()).String()},
		{name: "index without this platform", ref: "none:v1", wantErr: ErrPlatform, wantText: "linux/s390x, windows/"},
		{name: "image of another platform", ref: "single:v1", wantErr: ErrPlatform, wantText: "linux/s390x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			got, err := s.Pull(t.Context(), reg.host+"/"+tt.ref, PullOptions{})
			if !errors.Is(err, tt.wantErr) || (err != nil && !strings.Contains(err.Error(), tt.wantText)) {
				t.Fatalf("Pull: %v, want %v with %q", err, tt.wantErr, tt.wantText)
			}
			if tt.wantErr != nil {
				return
			}
			if got.ID != must(mine.ConfigName()).String() {
				t.Errorf("Pull chose %s", got.ID)
			}
			// What a Deployment names by the digest of the index, and what a status reports by that of the manifest, are both present.
			if again, err := s.Resolve(t.Context(), got.RepoDigest); err != nil || again.ID != got.ID {
				t.Errorf("Resolve(%s) = %s, %v", got.RepoDigest, again.ID, err)
			}
			repo, _, _ := strings.Cut(got.RepoDigest, "@")
			if again, err := s.Resolve(t.Context(), repo+"@"+must(mine.Digest()).String()); err != nil || again.ID != got.ID {
				t.Errorf("Resolve by the manifest's digest = %s, %v", again.ID, err)
			}
		})
	}
}

func TestPullCredentials(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret")) {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"the door is closed"}]}`)
		return true
	})
	img := newImage(t, layer(t, file("a", "1")))
	secret := func(user, password string) PullSecret {
		return PullSecret{Name: user, Type: SecretDockerConfigJSON, Data: map[string][]byte{
			keyDockerConfigJSON: fmt.Appendf(nil, `{"auths":{%q:{"username":%q,"password":%q}}}`, reg.host, user, password),
		}}
	}
	right := must(ParsePullSecrets(secret("me", "secret")))
	wrong := must(ParsePullSecrets(secret("me", "guess")))
	both := must(ParsePullSecrets(secret("me", "guess"), secret("me", "secret")))
	ref := reg.host + "/private:v1"
	if err := remote.Write(must(name.ParseReference(ref)), img, remote.WithAuthFromKeychain(right)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		keys *Keychain
		want error
	}{
		{"none", nil, ErrUnauthorized},
		{"wrong", wrong, ErrUnauthorized},
		{"right", right, nil},
		{"second secret", both, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opts := PullOptions{}
			if tt.keys != nil {
				opts.Keychain = tt.keys
			}
			_, err := newStore(t).Pull(t.Context(), ref, opts)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Pull: %v, want %v", err, tt.want)
			}
			if tt.want != nil && !strings.Contains(err.Error(), "the door is closed") {
				t.Errorf("Pull: %v does not have the registry's words", err)
			}
		})
	}
}

func TestPullErrors(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	reg.push(t, "app:v1", newImage(t, layer(t, file("a", "1"))))
	tests := []struct {
		name, ref, text string
		want            error
	}{
		{"no such tag", reg.host + "/app:v2", "MANIFEST_UNKNOWN", ErrNotFound},
		{"no such repository", reg.host + "/other", "NAME_UNKNOWN", ErrNotFound},
		{"bad name", "Not A Name", "could not parse", ErrInvalidName},
		{"local", "dev.local/absent:v1", "weft image build", ErrNeverPull},
		{"local of ko", "ko.local/absent", "weft image build", ErrNeverPull},
		{"local of kind", "kind.local/absent", "weft image build", ErrNeverPull},
	}
	s := newStore(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := s.Pull(t.Context(), tt.ref, PullOptions{})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Pull: %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

func TestPullUnreachable(t *testing.T) {
	t.Parallel()
	_, err := newStore(t).Pull(t.Context(), "127.0.0.1:1/app:v1", PullOptions{})
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Pull: %v, want the network's error", err)
	}
}

// bigLayer has enough bytes that they do not fit into the buffers of a connection.
func bigLayer(t *testing.T, n string) v1.Layer {
	t.Helper()
	var body strings.Builder
	for i := 0; body.Len() < 1<<20; i++ {
		fmt.Fprintf(&body, "%s %d\n", n, i*i)
	}
	data := archive(t, file(n, body.String()))
	return must(tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }))
}

func TestPullCorrupted(t *testing.T) {
	t.Parallel()
	l := bigLayer(t, "a")
	img := newImage(t, l)
	data := must(io.ReadAll(must(l.Compressed())))
	tests := []struct {
		name string
		body []byte
	}{
		{"one bit", func() []byte { d := bytes.Clone(data); d[len(d)/2] ^= 1; return d }()},
		{"other content", must(io.ReadAll(must(layer(t, file("a", "evil")).Compressed())))},
		{"more", append(bytes.Clone(data), 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !broken.Load() || !strings.HasSuffix(r.URL.Path, must(l.Digest()).String()) || r.Header.Get("Range") != "" {
					return false
				}
				_, _ = w.Write(tt.body)
				return true
			})
			ref := reg.push(t, "app:v1", img)
			s := newStore(t)
			broken.Store(true)
			if _, err := s.Pull(t.Context(), ref, PullOptions{}); err == nil {
				t.Fatal("Pull took a corrupted layer")
			}
			if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, ErrNotFound) {
				t.Errorf("Resolve: %v, want %v", err, ErrNotFound)
			}
			for _, d := range []string{layersDir, tempDir} {
				if left := must(os.ReadDir(s.path(d))); len(left) != 0 {
					t.Errorf("%s has %v", d, left)
				}
			}
			broken.Store(false)
			if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
				t.Errorf("Pull from the mended registry: %v", err)
			}
		})
	}
}

// A manifest can name the right bytes and the configuration lie about what is in them.
func TestPullWrongDiffID(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	l, other := layer(t, file("a", "1")), layer(t, file("a", "2"))
	ref := reg.push(t, "app:v1", newImage(t, compressedLayer{l, other}))
	_, err := newStore(t).Pull(t.Context(), ref, PullOptions{})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("Pull: %v, want %v", err, ErrCorrupt)
	}
}

func TestPullGoesOnBehindABrokenConnection(t *testing.T) {
	t.Parallel()
	l := bigLayer(t, "a")
	data := must(io.ReadAll(must(l.Compressed())))
	var breaks atomic.Int32
	var mu sync.Mutex
	var ranges []string
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, must(l.Digest()).String()) {
			return false
		}
		mu.Lock()
		ranges = append(ranges, r.Header.Get("Range"))
		mu.Unlock()
		if breaks.Add(1) != 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	ref := reg.push(t, "app:v1", newImage(t, l))
	if _, err := newStore(t).Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(ranges) != 2 || ranges[0] != "" || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Errorf("asked for ranges %q, want the whole and then the rest", ranges)
	}
}

func TestPullAgainAfterInterruption(t *testing.T) {
	t.Parallel()
	small, big := layer(t, file("small", "1")), bigLayer(t, "big")
	var hang atomic.Bool
	hang.Store(true)
	held := make(chan struct{}, 1)
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !hang.Load() || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, must(big.Digest()).String()) {
			return false
		}
		held <- struct{}{}
		<-r.Context().Done()
		return true
	})
	ref := reg.push(t, "app:v1", newImage(t, small, big))
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	placed := make(chan struct{}, 1)
	go func() {
		_, err := s.Pull(ctx, ref, PullOptions{Progress: func(p Progress) {
			if p.Layers == 1 {
				placed <- struct{}{}
			}
		}})
		done <- err
	}()
	<-held
	<-placed
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted Pull: %v", err)
	}
	hang.Store(false)
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := reg.blobGets()[must(small.Digest()).String()]; n != 1 {
		t.Errorf("the layer that was complete was fetched %d times, want once", n)
	}
}

func TestPullConcurrently(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	shared := bigLayer(t, "shared")
	refs := []string{
		reg.push(t, "first:v1", newImage(t, shared, layer(t, file("a", "1")))),
		reg.push(t, "second:v1", newImage(t, shared, layer(t, file("b", "1")))),
	}
	s := newStore(t)
	errs := make(chan error)
	for i := range 16 {
		go func() {
			_, err := s.Pull(t.Context(), refs[i%2], PullOptions{})
			errs <- err
		}()
	}
	for range 16 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	// Configurations are small and belong to a pull; layers must come once whatever the timing.
	for _, ref := range refs {
		for _, l := range must(must(remote.Image(must(name.ParseReference(ref)))).Layers()) {
			if n := reg.blobGets()[must(l.Digest()).String()]; n != 1 {
				t.Errorf("layer of %s was fetched %d times, want once", ref, n)
			}
		}
	}
}

func TestPullReportsProgress(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	img := newImage(t, bigLayer(t, "a"), layer(t, file("b", "1")))
	var last Progress
	got, err := newStore(t).Pull(t.Context(), reg.push(t, "app:v1", img), PullOptions{Progress: func(p Progress) {
		if p.Bytes < last.Bytes || p.Layers < last.Layers {
			t.Errorf("progress went back from %+v to %+v", last, p)
		}
		last = p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Progress{Bytes: got.Size, TotalBytes: got.Size, Layers: 2, TotalLayers: 2}); last != want {
		t.Errorf("last progress %+v, want %+v", last, want)
	}
}
