package image

import (
	"io"
	"log"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testArch = runtime.GOARCH

func nopLog() *log.Logger { return log.New(io.Discard, "", 0) }

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
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	byDigest := reg.host + "/team/app@" + digest.String()
	for _, r := range []string{ref, byDigest, config.String(), config.Hex[:12]} {
		again, err := s.Resolve(ctx, r)
		if err != nil {
			t.Fatalf("Resolve(%q): %v", r, err)
		}
		if again.ID != config.String() || again.RepoDigest != byDigest {
			t.Errorf("Resolve(%q) = %s, %s; want %s, %s", r, again.ID, again.RepoDigest, config, byDigest)
		}
	}
	want := map[string]string{"etc": "dir", "etc/b": "1", "opt": "dir", "opt/new": "2"}
	if diff := cmp.Diff(want, tree(t, mount(t, got.Layers))); diff != "" {
		t.Errorf("container sees (-want +got):\n%s", diff)
	}
}
