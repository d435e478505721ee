package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// indexVersion changes when an older weft could misread the file.
const indexVersion = 1

// index is the file that says which images the store has. An image without a name is not in it.
type index struct {
	Version int `json:"version"`
	// Names are normalised references, by tag and by digest.
	Names map[string]target `json:"names"`
	// Images by ID.
	Images map[string]record `json:"images"`
}

// target is what a name refers to.
type target struct {
	// ID of the image.
	ID string `json:"id"`
	// RepoDigest is "repository@sha256:..." as the registry answered for this name; empty when it came from no registry.
	RepoDigest string `json:"repoDigest,omitempty"`
}

// record is what the index holds of an image; the rest is in its configuration blob.
type record struct {
	// Manifest is the hex digest of the manifest blob.
	Manifest string `json:"manifest"`
	// Layers are the hex digests of the uncompressed layers, base first.
	Layers []string `json:"layers"`
	// Stack are the names of the directories to mount, base first: the layers, or variants of them.
	Stack []string `json:"stack"`
	// Size of the compressed layers in bytes.
	Size int64 `json:"size"`
	// Added is when the image came into the store.
	Added time.Time `json:"added"`
}

// snapshot is an index as read, with the identity of the file it came from. It is never changed.
type snapshot struct {
	index
	id fileID
}

// fileID tells versions of the index apart. Each is a new file, so that the inode or the time differs.
type fileID struct {
	inode   uint64
	size    int64
	mtimeNS int64
}

// indexCache keeps the last snapshot. Reads are lock-free.
type indexCache struct {
	current atomic.Pointer[snapshot]
}

// statIndex returns the identity of the index file; the zero value when there is none yet.
func statIndex(path string) (fileID, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fileID{}, nil
		}
		return fileID{}, fmt.Errorf("reading image index: %w", err)
	}
	return fileID{inode: st.Ino, size: st.Size, mtimeNS: st.Mtim.Nano()}, nil
}

// snapshot returns the index as it is on disk now. It costs one stat while no process changed the index.
func (s *Store) snapshot() (*snapshot, error) {
	path := s.path(indexFile)
	id, err := statIndex(path)
	if err != nil {
		return nil, err
	}
	if cur := s.cache.current.Load(); cur != nil && cur.id == id {
		return cur, nil
	}
	snap := &snapshot{id: id, index: index{Version: indexVersion, Names: map[string]target{}, Images: map[string]record{}}}
	if id != (fileID{}) {
		// The file may be replaced between stat and read. Then a newer content is kept under an older identity, and the next
		// call reads once more.
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading image index: %w", err)
		}
		if err := json.Unmarshal(data, &snap.index); err != nil {
			return nil, fmt.Errorf("reading image index %q: %w", path, err)
		}
		if snap.Version > indexVersion {
			return nil, fmt.Errorf("reading image index %q: version %d was written by a newer weft", path, snap.Version)
		}
	}
	s.cache.current.Store(snap)
	return snap, nil
}

// update applies change to the index while no other process can. Images that lost their last name leave the index; their layers
// stay until Collect. An error of change leaves the index as it was.
func (s *Store) update(change func(*index) error) error {
	keep, err := lockShared(s.path(gcLock)) // the new index is a file below tmp for a moment
	if err != nil {
		return err
	}
	defer keep.unlock()
	lock, err := lockExclusive(s.path(indexLock))
	if err != nil {
		return err
	}
	defer lock.unlock()
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	next := index{Version: indexVersion, Names: maps.Clone(snap.Names), Images: maps.Clone(snap.Images)}
	if err := change(&next); err != nil {
		return err
	}
	next.dropNameless()
	data, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return fmt.Errorf("writing image index: %w", err)
	}
	return s.writeDurable(s.path(indexFile), data)
}

// dropNameless removes images that no name refers to and names that refer to nothing.
func (x *index) dropNameless() {
	named := map[string]bool{}
	for n, t := range x.Names {
		if _, ok := x.Images[t.ID]; !ok {
			delete(x.Names, n)
			continue
		}
		named[t.ID] = true
	}
	for id := range x.Images {
		if !named[id] {
			delete(x.Images, id)
		}
	}
}

// namesOf returns the sorted names of an image: tags first, then digests.
func (x *index) namesOf(id string) []string {
	var tags, digests []string
	for n, t := range x.Names {
		switch {
		case t.ID != id:
		case isDigestName(n):
			digests = append(digests, n)
		default:
			tags = append(tags, n)
		}
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return append(tags, digests...)
}

// lookup finds the name by which an image is known: the normalised reference, or for an ID or the start of one the first name of
// that image.
func (x *index) lookup(ref string) (string, error) {
	r, parseErr := parseReference(ref)
	if parseErr == nil {
		if _, ok := x.Names[r.name]; ok {
			return r.name, nil
		}
	}
	if prefix, ok := idPrefix(ref); ok {
		n, err := x.lookupID(prefix)
		if err != nil || n != "" {
			return n, err
		}
		if strings.HasPrefix(ref, "sha256:") {
			return "", fmt.Errorf("%w: %s", ErrNotFound, ref)
		}
	}
	if parseErr != nil {
		return "", parseErr
	}
	if r.local() {
		return "", fmt.Errorf("%w: %s: build it with `weft image build` or import it with `weft image import`", ErrNeverPull, r.name)
	}
	return "", fmt.Errorf("%w: %s", ErrNotFound, r.name)
}

// lookupID returns the first name of the only image whose ID starts with prefix, or "" when there is none.
func (x *index) lookupID(prefix string) (string, error) {
	found := ""
	for id := range x.Images {
		if !strings.HasPrefix(id, "sha256:"+prefix) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%w: %q is the start of more than one ID", ErrInvalidName, prefix)
		}
		found = id
	}
	if found == "" {
		return "", nil
	}
	return x.namesOf(found)[0], nil
}

// writeDurable replaces the file at path so that after a crash either the old or the new content is there.
func (s *Store) writeDurable(path string, data []byte) error {
	f, err := os.CreateTemp(s.path(tempDir), "file-*")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails after the rename, as it should
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncPath(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}

// syncPath flushes one file or directory.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
