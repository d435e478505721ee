package image

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func owned(n string, mode int64, uid int) entry {
	return entry{tar.Header{Name: n + "/", Typeflag: tar.TypeDir, Mode: mode, Uid: uid, Gid: uid}, ""}
}

func TestLayersFitOnWhatIsBelow(t *testing.T) {
	t.Parallel()
	base := []entry{
		dir("usr"), dir("usr/lib"), file("usr/lib/libc", "c"), link("lib", "usr/lib"), link("abs", "/usr/lib"), link("loop", "loop"),
		owned("tmp", 0o1777, 0), owned("home", 0o755, 0), owned("home/me", 0o700, 1000), file("plain", "p"),
	}
	tests := []struct {
		name   string
		upper  []entry
		want   map[string]string // beyond what the base shows
		modes  map[string]uint32
		owners map[string]uint32
	}{
		{
			name: "a directory that is a link below", upper: []entry{file("lib/mine", "m")},
			want: map[string]string{"usr/lib/mine": "m", "lib": "-> usr/lib"},
		},
		{
			name: "an absolute link below", upper: []entry{file("abs/deep/mine", "m")},
			want: map[string]string{"usr/lib/deep": "dir", "usr/lib/deep/mine": "m", "abs": "-> /usr/lib"},
		},
		{
			name: "both ways to one directory", upper: []entry{file("lib/a", "1"), file("usr/lib/b", "2"), file("lib/sub/c", "3")},
			want: map[string]string{"usr/lib/a": "1", "usr/lib/b": "2", "usr/lib/sub": "dir", "usr/lib/sub/c": "3"},
		},
		{
			name: "an entry for the directory replaces the link", upper: []entry{dir("lib"), file("lib/mine", "m")},
			want: map[string]string{"lib": "dir", "lib/mine": "m"},
		},
		{
			name: "owner and mode below", upper: []entry{file("tmp/x", "1"), file("home/me/y", "2")},
			want:   map[string]string{"tmp/x": "1", "home/me/y": "2"},
			modes:  map[string]uint32{"tmp": 0o1777, "home/me": 0o700},
			owners: map[string]uint32{"home/me": 1000},
		},
		{
			name: "a whiteout through a link", upper: []entry{file("lib/.wh.libc", "")},
			want: map[string]string{"usr/lib/libc": ""},
		},
		{
			name: "an opaque directory without an entry", upper: []entry{file("home/me/.wh..wh..opq", ""), file("home/me/new", "n")},
			want:  map[string]string{"home/me/new": "n"},
			modes: map[string]uint32{"home/me": 0o700},
		},
		{
			name: "a hard link in a moved directory", upper: []entry{file("lib/a", "1"), hardLink("lib/b", "lib/a")},
			want: map[string]string{"usr/lib/a": "1", "usr/lib/b": "1"},
		},
		{
			name: "a file below", upper: []entry{file("plain/x", "1")},
			want: map[string]string{"plain": "dir", "plain/x": "1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, nil)
			s := newStore(t)
			got, err := s.Pull(t.Context(), reg.push(t, "app:v1", newImage(t, layer(t, base...), layer(t, tt.upper...))), PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			merged := mount(t, got.Layers)
			lower, err := unpackEntries(t, base...)
			if err != nil {
				t.Fatal(err)
			}
			want := tree(t, lower)
			for p, body := range tt.want {
				want[p] = body
				if body == "" {
					delete(want, p)
				}
			}
			if diff := cmp.Diff(want, tree(t, merged)); diff != "" {
				t.Errorf("container sees (-want +got):\n%s", diff)
			}
			for p, mode := range tt.modes {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(merged, p), &st); err != nil || st.Mode&0o7777 != mode || st.Uid != tt.owners[p] && tt.owners != nil {
					t.Errorf("%s has mode %o and owner %d, %v; want %o and %d", p, st.Mode&0o7777, st.Uid, err, mode, tt.owners[p])
				}
			}
		})
	}
}

// One archive on two bases is used as it is on the one that it fits, and shares its files with the variant on the other.
func TestVariantsShareFiles(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	s := newStore(t)
	top := layer(t, file("lib/big", "content"))
	one, err := s.Pull(t.Context(), reg.push(t, "one:v1", newImage(t, layer(t, dir("lib")), top)), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Pull(t.Context(), reg.push(t, "two:v1", newImage(t, layer(t, dir("usr"), dir("usr/lib"), link("lib", "usr/lib")), top)), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := must(os.Stat(filepath.Join(one.Layers[1], "lib/big"))), must(os.Stat(filepath.Join(two.Layers[1], "usr/lib/big")))
	if !os.SameFile(a, b) {
		t.Error("the variant has a copy of the file")
	}
	if n := reg.blobGets()[must(top.Digest()).String()]; n != 1 {
		t.Errorf("the layer was fetched %d times, want once", n)
	}
	// The plain layer is still needed by the first image, the variant by the second.
	if _, err := s.Collect(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, img := range []Image{one, two} {
		for _, l := range img.Layers {
			if _, err := os.Stat(l); err != nil {
				t.Errorf("after Collect: %v", err)
			}
		}
	}
}

func TestStackHasEachLayerOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		in, want []string
	}{
		{"none", nil, nil},
		{"different", []string{"a", "b"}, []string{"a", "b"}},
		{"again on top", []string{"a", "b", "a"}, []string{"b", "a"}},
		{"in a row", []string{"a", "a", "b"}, []string{"a", "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, stack(tt.in)); diff != "" {
				t.Errorf("stack (-want +got):\n%s", diff)
			}
		})
	}
}
