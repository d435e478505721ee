package image

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pullTagged pulls a one-layer image and gives it a local name.
func pullTagged(t *testing.T, s *Store, reg *testRegistry, repo, tag string) Image {
	t.Helper()
	ref := reg.push(t, repo+":v1", newImage(t, layer(t, file(repo, repo))))
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), ref, tag); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestTagAndRemove(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	s := newStore(t)
	img := pullTagged(t, s, reg, "app", "dev.local/app:v1")
	ref, byDigest := reg.host+"/app:v1", img.RepoDigest
	names := func() []string {
		t.Helper()
		images := must(s.List(t.Context()))
		if len(images) == 0 {
			return nil
		}
		return images[0].Names
	}
	if diff := cmp.Diff([]string{ref, "dev.local/app:v1", byDigest}, names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if tagged := must(s.Resolve(t.Context(), "dev.local/app:v1")); tagged.RepoDigest != "" {
		t.Errorf("a local name has the digest %s of a registry", tagged.RepoDigest)
	}
	if err := s.Tag(t.Context(), "dev.local/app:v1", reg.host+"/app:v2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), ref, "dev.local/app@"+img.ID); !errors.Is(err, ErrInvalidName) {
		t.Errorf("Tag by digest: %v", err)
	}
	if err := s.Tag(t.Context(), "dev.local/absent", "dev.local/other"); !errors.Is(err, ErrNeverPull) {
		t.Errorf("Tag of nothing: %v", err)
	}
	steps := []struct {
		name, ref string
		want      []string
	}{
		{"one tag of three", "dev.local/app:v1", []string{"dev.local/app:v1"}},
		{"the digest while there are tags", byDigest, []string{byDigest}},
		{"another tag", reg.host + "/app:v2", []string{reg.host + "/app:v2"}},
		{"the last", ref, []string{ref}},
	}
	for _, st := range steps {
		gone, err := s.Remove(t.Context(), st.ref)
		if err != nil {
			t.Fatalf("%s: %v", st.name, err)
		}
		if diff := cmp.Diff(st.want, gone); diff != "" {
			t.Errorf("%s (-want +got):\n%s", st.name, diff)
		}
	}
	if left := names(); left != nil {
		t.Errorf("left are %v", left)
	}
	if _, err := s.Remove(t.Context(), ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove again: %v", err)
	}
}

func TestRemoveByID(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	img := pullTagged(t, s, newRegistry(t, nil), "app", "dev.local/app:v1")
	gone, err := s.Remove(t.Context(), img.ID)
	if err != nil || len(gone) != 3 {
		t.Errorf("Remove by ID: %v, %v; want three names", gone, err)
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	s := newStore(t)
	kept := pullTagged(t, s, reg, "kept", "dev.local/kept")
	listed := pullTagged(t, s, reg, "listed", "dev.local/listed")
	mounted := pullTagged(t, s, reg, "mounted", "dev.local/mounted")
	unused := pullTagged(t, s, reg, "unused", "dev.local/unused")
	for _, img := range []Image{listed, mounted, unused} {
		if _, err := s.Remove(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, mounted.Layers)
	done, err := s.Collect(t.Context(), listed.Layers)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Collected{Layers: 1, Blobs: 6}); done != want {
		t.Errorf("Collect removed %+v, want %+v", done, want)
	}
	for name, tt := range map[string]struct {
		img  Image
		want bool
	}{"in the index": {kept, true}, "in use": {listed, true}, "mounted": {mounted, true}, "unused": {unused, false}} {
		if _, err := os.Stat(tt.img.Layers[0]); (err == nil) != tt.want {
			t.Errorf("layer %s: %v, want it there: %t", name, err, tt.want)
		}
	}
	if left := must(os.ReadDir(s.path(tempDir))); len(left) != 0 {
		t.Errorf("tmp has %v", left)
	}
	// What Collect took comes back from the registry.
	if again, err := s.Pull(t.Context(), reg.host+"/unused:v1", PullOptions{}); err != nil || again.ID != unused.ID {
		t.Errorf("Pull after Collect: %s, %v", again.ID, err)
	}
}

func TestCollectWaitsForWork(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	busy := must(lockShared(s.path(gcLock)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Collect(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Collect during a pull: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Collect(t.Context(), nil)
		done <- err
	}()
	busy.unlock()
	if err := <-done; err != nil {
		t.Errorf("Collect after the pull: %v", err)
	}
}
