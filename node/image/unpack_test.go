package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// unpackEntries unpacks entries into a directory below a parent that must stay as it is.
func unpackEntries(t *testing.T, entries ...entry) (string, error) {
	t.Helper()
	parent := t.TempDir()
	if err := os.WriteFile(filepath.Join(parent, "host"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := filepath.Join(parent, "layer")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := unpack(d, bytes.NewReader(archive(t, entries...)))
	names, readErr := os.ReadDir(parent)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if len(names) != 2 {
		t.Errorf("beside the layer are now %v", names)
	}
	if data, readErr := os.ReadFile(filepath.Join(parent, "host")); readErr != nil || string(data) != "host" {
		t.Errorf("the host's file is now %q, %v", data, readErr)
	}
	return d, err
}

func hardLink(n, to string) entry {
	return entry{tar.Header{Name: n, Typeflag: tar.TypeLink, Linkname: to}, ""}
}

func TestUnpackStaysInside(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	tests := []struct {
		name    string
		entries []entry
		want    map[string]string
		wantErr error
	}{
		{name: "dot dot", entries: []entry{file("../host", "x")}, wantErr: ErrUnsafe},
		{name: "dot dot deep", entries: []entry{file("a/../../host", "x")}, wantErr: ErrUnsafe},
		{name: "dot dot inside", entries: []entry{file("a/../b", "x")}, want: map[string]string{"b": "x"}},
		{name: "absolute name", entries: []entry{file("/etc/passwd", "x")}, want: map[string]string{"etc": "dir", "etc/passwd": "x"}},
		{
			name: "through an absolute link", entries: []entry{link("out", outside), file("out/file", "x")},
			want: map[string]string{"out": "-> " + outside, trimRoot(outside): "dir", trimRoot(outside) + "/file": "x"},
		},
		{
			name: "through a link upwards", entries: []entry{link("up", "../../.."), file("up/file", "x")},
			want: map[string]string{"up": "-> ../../..", "file": "x"},
		},
		{name: "through a link to itself", entries: []entry{link("loop", "loop"), file("loop/file", "x")}, wantErr: unix.ELOOP},
		{
			name: "over a link", entries: []entry{link("f", "../host"), file("f", "x")},
			want: map[string]string{"f": "x"},
		},
		{
			name: "directory over a link", entries: []entry{link("d", ".."), dir("d"), file("d/host", "x")},
			want: map[string]string{"d": "dir", "d/host": "x"},
		},
		{
			name: "link over a used directory", entries: []entry{dir("d"), file("d/a", "x"), link("d", ".."), file("d/b", "y")},
			want: map[string]string{"d": "-> ..", "b": "y"},
		},
		{name: "hard link upwards", entries: []entry{hardLink("f", "../host")}, wantErr: ErrUnsafe},
		{
			name: "hard link through a link", entries: []entry{link("up", "../.."), hardLink("f", "up/host")},
			wantErr: unix.ENOENT,
		},
		{name: "whiteout upwards", entries: []entry{file("a/.wh...", "")}, wantErr: ErrUnsafe},
		{name: "whiteout of the directory", entries: []entry{file("a/.wh..", "")}, wantErr: ErrUnsafe},
		{name: "forged whiteout", entries: []entry{{tar.Header{Name: "a", Typeflag: tar.TypeChar}, ""}}, wantErr: ErrUnsafe},
		{name: "file as directory", entries: []entry{file("a", "x"), file("a/b", "x")}, wantErr: unix.ENOTDIR},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := unpackEntries(t, tt.entries...)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("unpack: %v, want %v", err, tt.wantErr)
			}
			if tt.wantErr != nil {
				return
			}
			got := tree(t, d)
			for p := filepath.Dir(trimRoot(outside)); p != "."; p = filepath.Dir(p) {
				delete(got, p)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("layer (-want +got):\n%s", diff)
			}
		})
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside is now %v, %v", entries, err)
	}
}

func trimRoot(p string) string { return p[1:] }

func TestUnpackKeepsAttributes(t *testing.T) {
	t.Parallel()
	capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // cap_net_bind_service+ep
	when := time.Unix(1234567890, 500)
	d, err := unpackEntries(t,
		entry{tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 7, Gid: 8, ModTime: when, Format: tar.FormatPAX}, ""},
		entry{tar.Header{
			Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000000, Gid: 9, ModTime: when, Format: tar.FormatPAX,
			PAXRecords: map[string]string{
				"SCHILY.xattr.security.capability":      capability,
				"SCHILY.xattr.user.color":               "blue",
				"SCHILY.xattr.trusted.overlay.redirect": "/etc",
				"SCHILY.xattr.user.overlay.opaque":      "y",
			},
		}, "body"},
		hardLink("d/g", "d/f"),
		entry{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600, Uid: 3}, ""},
		entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "nowhere", Uid: 5, Gid: 6}, ""},
	)
	if err != nil {
		t.Fatal(err)
	}
	type attr struct {
		Mode, UID, GID uint32
		Rdev, Mtime    int64
		Links          uint64
	}
	want := map[string]attr{
		"d":    {unix.S_IFDIR | 0o1777, 7, 8, 0, when.Unix(), 2},
		"d/f":  {unix.S_IFREG | 0o4755, 1000000, 9, 0, when.Unix(), 2},
		"d/g":  {unix.S_IFREG | 0o4755, 1000000, 9, 0, when.Unix(), 2},
		"fifo": {unix.S_IFIFO | 0o600, 3, 0, 0, 1700000000, 1},
		"null": {unix.S_IFCHR | 0o666, 0, 0, int64(unix.Mkdev(1, 3)), 1700000000, 1},
		"s":    {unix.S_IFLNK | 0o777, 5, 6, 0, 1700000000, 1},
	}
	got := map[string]attr{}
	for n := range want {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(d, n), &st); err != nil {
			t.Fatal(err)
		}
		got[n] = attr{st.Mode, st.Uid, st.Gid, int64(st.Rdev), st.Mtim.Sec, st.Nlink}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	xattrs := map[string]string{}
	for _, key := range []string{"security.capability", "user.color", "trusted.overlay.redirect", "user.overlay.opaque"} {
		buf := make([]byte, 100)
		if n, err := unix.Lgetxattr(filepath.Join(d, "d/f"), key, buf); err == nil {
			xattrs[key] = string(buf[:n])
		}
	}
	if diff := cmp.Diff(map[string]string{"security.capability": capability, "user.color": "blue"}, xattrs); diff != "" {
		t.Errorf("extended attributes (-want +got):\n%s", diff)
	}
}

func TestWhiteouts(t *testing.T) {
	t.Parallel()
	base := []entry{dir("d"), file("d/a", "1"), file("d/b", "1"), dir("d/sub"), file("d/sub/x", "1"), file("top", "1")}
	tests := []struct {
		name  string
		upper []entry
		want  map[string]string
	}{
		{
			name: "file", upper: []entry{file("d/.wh.a", "")},
			want: map[string]string{"d": "dir", "d/b": "1", "d/sub": "dir", "d/sub/x": "1", "top": "1"},
		},
		{
			name: "directory", upper: []entry{file("d/.wh.sub", "")},
			want: map[string]string{"d": "dir", "d/a": "1", "d/b": "1", "top": "1"},
		},
		{
			name: "opaque before its content", upper: []entry{dir("d"), file("d/.wh..wh..opq", ""), file("d/new", "2")},
			want: map[string]string{"d": "dir", "d/new": "2", "top": "1"},
		},
		{
			name: "opaque after its content", upper: []entry{dir("d"), file("d/new", "2"), file("d/.wh..wh..opq", "")},
			want: map[string]string{"d": "dir", "d/new": "2", "top": "1"},
		},
		{
			name: "removed and made again", upper: []entry{file("d/.wh.a", ""), file("d/a", "2")},
			want: map[string]string{"d": "dir", "d/a": "2", "d/b": "1", "d/sub": "dir", "d/sub/x": "1", "top": "1"},
		},
		{
			name: "made and then removed", upper: []entry{file("d/a", "2"), file("d/.wh.a", "")},
			want: map[string]string{"d": "dir", "d/a": "2", "d/b": "1", "d/sub": "dir", "d/sub/x": "1", "top": "1"},
		},
		{
			name: "directory removed and made again", upper: []entry{file(".wh.d", ""), dir("d"), file("d/c", "2")},
			want: map[string]string{"d": "dir", "d/c": "2", "top": "1"},
		},
		{
			name: "directory made and then removed", upper: []entry{dir("d"), file("d/c", "2"), file(".wh.d", "")},
			want: map[string]string{"d": "dir", "d/c": "2", "top": "1"},
		},
		{
			name: "directory removed and implied", upper: []entry{file(".wh.d", ""), file("d/c", "2")},
			want: map[string]string{"d": "dir", "d/c": "2", "top": "1"},
		},
		{
			name: "bookkeeping of aufs", upper: []entry{file(".wh..wh.plnk", ""), file(".wh..wh.aufs", "")},
			want: map[string]string{"d": "dir", "d/a": "1", "d/b": "1", "d/sub": "dir", "d/sub/x": "1", "top": "1"},
		},
		{
			name: "file over a directory", upper: []entry{file("d", "2")},
			want: map[string]string{"d": "2", "top": "1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lower, err := unpackEntries(t, base...)
			if err != nil {
				t.Fatal(err)
			}
			upper, err := unpackEntries(t, tt.upper...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, tree(t, mount(t, []string{lower, upper}))); diff != "" {
				t.Errorf("container sees (-want +got):\n%s", diff)
			}
			// The view that variants are made from must agree with the kernel.
			for _, p := range []string{"d", "d/a", "d/b", "d/c", "d/new", "d/sub", "d/sub/x", "top"} {
				n, err := view{lower, upper}.lstat(p)
				if err != nil {
					t.Fatal(err)
				}
				if _, shown := tt.want[p]; shown != (n != nil) {
					t.Errorf("view shows %s: %t, kernel: %t", p, n != nil, shown)
				}
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add("a/b", "../x", byte(tar.TypeSymlink), "a/b/c", byte(tar.TypeReg))
	f.Add(".wh.a", "", byte(tar.TypeReg), "a/c", byte(tar.TypeReg))
	f.Add("l", "/", byte(tar.TypeSymlink), "l/l/../../x", byte(tar.TypeLink))
	f.Fuzz(func(t *testing.T, name1, link1 string, type1 byte, name2 string, type2 byte) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range []tar.Header{{Name: name1, Linkname: link1, Typeflag: type1, Mode: 0o755}, {Name: name2, Linkname: name1, Typeflag: type2, Mode: 0o755}} {
			if err := w.WriteHeader(&h); err != nil {
				return // no archive
			}
		}
		if err := w.Close(); err != nil {
			return
		}
		parent := t.TempDir()
		d := filepath.Join(parent, "layer")
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = unpack(d, &buf) // an error is fine, an escape is not
		if names, err := os.ReadDir(parent); err != nil || len(names) != 1 {
			t.Errorf("beside the layer are now %v, %v", names, err)
		}
	})
}
