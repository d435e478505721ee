package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Listed is one image of List.
type Listed struct {
	// ID of the image, "sha256:...".
	ID string
	// Names by which the image is known, tags first, then digests.
	Names []string
	// Size of the compressed layers in bytes.
	Size int64
	// Added is when the image came into the store.
	Added time.Time
}

// List returns all images, ordered by their first name.
func (s *Store) List(_ context.Context) ([]Listed, error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	out := make([]Listed, 0, len(snap.Images))
	for id, rec := range snap.Images {
		out = append(out, Listed{ID: id, Names: snap.namesOf(id), Size: rec.Size, Added: rec.Added})
	}
	slices.SortFunc(out, func(a, b Listed) int { return strings.Compare(a.Names[0], b.Names[0]) })
	return out, nil
}

// Tag gives an image that is present another name.
func (s *Store) Tag(_ context.Context, ref, newName string) error {
	r, err := parseReference(newName)
	if err != nil {
		return err
	}
	if r.digested() {
		return fmt.Errorf("%w: %q: a digest cannot be given to an image", ErrInvalidName, newName)
	}
	return s.update(func(x *index) error {
		n, err := x.lookup(ref)
		if err != nil {
			return err
		}
		t := target{ID: x.Names[n].ID}
		if old := x.Names[n].RepoDigest; strings.HasPrefix(old, r.repo+"@") {
			t.RepoDigest = old
		}
		x.Names[r.name] = t
		return nil
	})
}

// Remove takes a name from an image; with its last tag, or when ref is an ID, all names. Layers stay on disk until Collect. It returns
// the names that went.
func (s *Store) Remove(_ context.Context, ref string) ([]string, error) {
	var gone []string
	err := s.update(func(x *index) error {
		n, err := x.lookup(ref)
		if err != nil {
			return err
		}
		gone = x.removable(ref, n)
		for _, g := range gone {
			delete(x.Names, g)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// removable returns the names that go with name n, which ref resolved to.
func (x *index) removable(ref, n string) []string {
	all := x.namesOf(x.Names[n].ID)
	if r, err := parseReference(ref); err != nil || r.name != n {
		return all // by ID
	}
	for _, other := range all {
		if other != n && !isDigestName(other) {
			return []string{n}
		}
	}
	if isDigestName(n) && !isDigestName(all[0]) {
		return []string{n}
	}
	return all
}

// Collected is what Collect removed.
type Collected struct {
	// Layers and Blobs removed.
	Layers, Blobs int
}

// layerName is a directory of an unpacked layer, wherever it appears in a text.
var layerName = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// Collect removes what no image in the index needs: layers, manifests, configurations, and leftovers of dead processes. A layer stays
// when its path is in inUse, or when a mount in any namespace of this machine names it, which mounts on kernels before 6.5 may not.
// Collect waits until no pull, import or build is under way in any process, or ctx ends.
//
// The caller must not let a container start from an image that left the index before Collect, except when its layers are in inUse.
func (s *Store) Collect(ctx context.Context, inUse []string) (Collected, error) {
	var done Collected
	lock, err := lockContext(ctx, s.path(gcLock))
	if err != nil {
		return done, err
	}
	defer lock.unlock()
	snap, err := s.snapshot()
	if err != nil {
		return done, err
	}
	layers, blobs := map[string]bool{}, map[string]bool{}
	for id, rec := range snap.Images {
		blobs[strings.TrimPrefix(id, "sha256:")] = true
		blobs[rec.Manifest] = true
		for _, l := range slices.Concat(rec.Layers, rec.Stack) {
			layers[l] = true
		}
	}
	for _, p := range inUse {
		layers[filepath.Base(p)] = true
	}
	mounted, err := mountedLayers()
	if err != nil {
		return done, err
	}
	maps.Copy(layers, mounted)
	s.forget()
	if done.Layers, err = s.removeExcept(layersDir, layers); err != nil {
		return done, err
	}
	if _, err = s.removeExcept(impliedDir, layers); err != nil {
		return done, err
	}
	if done.Blobs, err = s.removeExcept(blobsDir, blobs); err != nil {
		return done, err
	}
	return done, s.sweepLocked()
}

// removeExcept moves what is not kept below tmp, so that a half removed layer is never taken for a whole one. sweepLocked removes it.
func (s *Store) removeExcept(dir string, keep map[string]bool) (int, error) {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return 0, fmt.Errorf("collecting %s: %w", dir, err)
	}
	n := 0
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		tmp, err := os.MkdirTemp(s.path(tempDir), "gone-*")
		if err != nil {
			return n, fmt.Errorf("collecting %s: %w", dir, err)
		}
		if err := os.Rename(s.path(dir, e.Name()), filepath.Join(tmp, e.Name())); err != nil {
			return n, fmt.Errorf("collecting %s: %w", dir, err)
		}
		n++
	}
	return n, nil
}

// mountedLayers returns the layers in the options of any mount that a process of this machine sees. Containers live on when weft is
// down, and their root file systems may be in mount namespaces of their own; the kernel's list is the one that is always right.
func mountedLayers() (map[string]bool, error) {
	found, seen := map[string]bool{}, map[string]bool{}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	for _, p := range procs {
		ns, err := os.Readlink(p + "/ns/mnt")
		if err != nil || seen[ns] {
			continue // gone, or a kernel thread; its namespace is that of others
		}
		data, err := os.ReadFile(p + "/mountinfo")
		if errors.Is(err, fs.ErrNotExist) || len(data) == 0 {
			continue
		}
		if err != nil {
			continue // ended between the two calls
		}
		seen[ns] = true
		for _, l := range layerName.FindAllString(string(data), -1) {
			found[l] = true
		}
	}
	return found, nil
}
