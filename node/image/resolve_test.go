package image

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestResolveErrors(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	tests := []struct {
		name, ref string
		want      error
	}{
		{"tag", "nginx:1.27", ErrNotFound},
		{"digest", "nginx@sha256:" + strings.Repeat("0", 64), ErrNotFound},
		{"ID", "sha256:" + strings.Repeat("0", 64), ErrNotFound},
		{"start of an ID", "0123456789ab", ErrNotFound},
		{"local", "dev.local/hello", ErrNeverPull},
		{"upper case", "Nginx", ErrInvalidName},
		{"empty", "", ErrInvalidName},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := s.Resolve(t.Context(), tt.ref); !errors.Is(err, tt.want) {
				t.Errorf("Resolve: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestNormalisedNames(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("a", 64)
	tests := []struct{ ref, want string }{
		{"nginx", "docker.io/library/nginx:latest"},
		{"me/app:v1", "docker.io/me/app:v1"},
		{"docker.io/nginx:1.27", "docker.io/library/nginx:1.27"},
		{"index.docker.io/library/nginx", "docker.io/library/nginx:latest"},
		{"ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"},
		{"localhost/app", "localhost/app:latest"},
		{"localhost:5000/app", "localhost:5000/app:latest"},
		{"nginx:1.27@" + digest, "docker.io/library/nginx@" + digest},
		{"dev.local/hello", "dev.local/hello:latest"},
	}
	for _, tt := range tests {
		t.Run(tt.ref, func(t *testing.T) {
			t.Parallel()
			r, err := parseReference(tt.ref)
			if err != nil || r.name != tt.want {
				t.Errorf("parseReference(%q) = %q, %v; want %q", tt.ref, r.name, err, tt.want)
			}
			if IsLocal(tt.ref) != strings.HasPrefix(tt.want, "dev.local/") {
				t.Errorf("IsLocal(%q) = %t", tt.ref, IsLocal(tt.ref))
			}
		})
	}
}

func TestResolveAmbiguousID(t *testing.T) {
	t.Parallel()
	x := index{
		Names:  map[string]target{"a": {ID: "sha256:0123456789abc1"}, "b": {ID: "sha256:0123456789abc2"}},
		Images: map[string]record{"sha256:0123456789abc1": {}, "sha256:0123456789abc2": {}},
	}
	if n, err := x.lookup("0123456789abc"); !errors.Is(err, ErrInvalidName) {
		t.Errorf("lookup of a start that two have: %q, %v", n, err)
	}
	if n, err := x.lookup("0123456789abc2"); err != nil || n != "b" {
		t.Errorf("lookup of a start that one has: %q, %v", n, err)
	}
}

func TestIndexOfNewerVersion(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if err := os.WriteFile(s.path(indexFile), must(json.Marshal(index{Version: indexVersion + 1})), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Resolve(t.Context(), "nginx")
	if err == nil || !strings.Contains(err.Error(), "newer weft") {
		t.Errorf("Resolve: %v, want a word about the version", err)
	}
	if err := s.Tag(t.Context(), "nginx", "other"); err == nil {
		t.Error("Tag wrote over an index that it does not know")
	}
}

// benchStore has one image among many.
func benchStore(tb testing.TB) *Store {
	tb.Helper()
	s := must(Open(tb.TempDir(), Options{}))
	config := must(s.putBlob([]byte(`{"config":{"Entrypoint":["/app"]}}`)))
	err := s.update(func(x *index) error {
		for i := range 200 {
			id := "sha256:" + strings.Repeat("0", 61) + string(rune('a'+i%26)) + string(rune('a'+i/26))
			x.Images[id], x.Names["docker.io/library/other:"+id[70:]] = record{}, target{ID: id}
		}
		x.Images["sha256:"+config], x.Names["dev.local/app:v1"] = record{Layers: []string{}}, target{ID: "sha256:" + config}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// resolveAllocs is what Resolve may allocate: the parts of a parsed reference.
const resolveAllocs = 20

func TestResolveAllocations(t *testing.T) {
	s := benchStore(t)
	ctx := t.Context()
	got := testing.AllocsPerRun(100, func() {
		if _, err := s.Resolve(ctx, "dev.local/app:v1"); err != nil {
			t.Fatal(err)
		}
	})
	if got > resolveAllocs {
		t.Errorf("Resolve allocates %v times, at most %d are expected", got, resolveAllocs)
	}
}

func BenchmarkResolve(b *testing.B) {
	s := benchStore(b)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Resolve(ctx, "dev.local/app:v1"); err != nil {
			b.Fatal(err)
		}
	}
}
