package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x:one:two::\nweb:x:33:34:Web:/srv/web:/bin/false\nhomeless:x:50:50:::\n"
	groups = "root:x:0:\nweb:x:34:\nlog:x:35:adm,web\nadm:x:36:web\n"
)

// testRoot is a root file system with the given files.
func testRoot(t *testing.T, files map[string]string) *root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func TestResolveUser(t *testing.T) {
	t.Parallel()
	number := func(n int64) *int64 { return &n }
	tests := []struct {
		name     string
		process  Process
		uid, gid uint32
		groups   []uint32
		home     string
		wantErr  string
	}{
		{name: "none is root", groups: []uint32{0}, home: "/root"},
		{name: "by name", process: Process{User: "web"}, uid: 33, gid: 34, groups: []uint32{34, 35, 36}, home: "/srv/web"},
		{name: "by number", process: Process{User: "33"}, uid: 33, gid: 34, groups: []uint32{34, 35, 36}, home: "/srv/web"},
		{name: "unknown number", process: Process{User: "99"}, uid: 99, groups: []uint32{0}, home: "/"},
		{name: "no home", process: Process{User: "homeless"}, uid: 50, gid: 50, groups: []uint32{50}, home: "/"},
		{name: "with group name", process: Process{User: "web:log"}, uid: 33, gid: 35, groups: []uint32{35}, home: "/srv/web"},
		{name: "with group number", process: Process{User: "web:7"}, uid: 33, gid: 7, groups: []uint32{7}, home: "/srv/web"},
		{
			name: "overridden", process: Process{User: "nobody-knows:web", UID: number(33), GID: number(8)},
			uid: 33, gid: 8, groups: []uint32{8}, home: "/srv/web",
		},
		{
			name: "more groups", process: Process{User: "web", SupplementalGroups: []int64{1, 34}},
			uid: 33, gid: 34, groups: []uint32{1, 34, 35, 36}, home: "/srv/web",
		},
		{name: "unknown name", process: Process{User: "x"}, wantErr: "unable to find user x: no matching entries in passwd file"},
		{name: "unknown group", process: Process{User: "web:x"}, wantErr: "unable to find group x: no matching entries in group file"},
		{name: "number too large", process: Process{UID: number(1 << 40)}, wantErr: "user number 1099511627776 is out of range"},
	}
	root := testRoot(t, map[string]string{"etc/passwd": passwd, "etc/group": groups})
	t.Run("image", func(t *testing.T) { // so that the root outlives its parallel tests
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				got, err := resolveUser(tt.process, root)
				if tt.wantErr != "" {
					if err == nil || err.Error() != tt.wantErr {
						t.Errorf("got %v, want %q", err, tt.wantErr)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				want := resolvedUser{User: specs.User{UID: tt.uid, GID: tt.gid, AdditionalGids: tt.groups}, home: tt.home}
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(resolvedUser{})); diff != "" {
					t.Errorf("user (-want +got):\n%s", diff)
				}
			})
		}
	})
}

// TestRootStaysInside has an image whose links lead outside, by which it could read files of the machine.
func TestRootStaysInside(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("spy:x:66:66::/spy:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := testRoot(t, map[string]string{"real/passwd": passwd, "etc/group": groups})
	dir, err := os.Readlink(filepath.Join("/proc/self/fd", itoa(root.fd)))
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "etc/passwd")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if _, err := resolveUser(Process{User: "spy"}, root); err == nil {
		t.Error("a link to outside was followed")
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/real/passwd", link); err != nil { // absolute, as the container sees it
		t.Fatal(err)
	}
	if got, err := resolveUser(Process{User: "web"}, root); err != nil || got.UID != 33 {
		t.Errorf("a link inside: got %v, %v, want user 33", got, err)
	}
	if err := os.Symlink("/../../..", filepath.Join(dir, "up")); err != nil {
		t.Fatal(err)
	}
	if err := root.mkdirAll("/up/made/here"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "made/here")); err != nil {
		t.Errorf("making a directory below a link: %v", err)
	}
}
