package image

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Resolve returns the image that the store has under a tag, a digest, an ID ("sha256:...") or the start of an ID. It asks no
// registry: the error wraps ErrNotFound, ErrNeverPull for a local name, or ErrInvalidName. It is on the path of a cold start, and
// costs one stat while the index did not change. The image's slices and maps are shared and must not be changed.
func (s *Store) Resolve(_ context.Context, ref string) (Image, error) {
	snap, err := s.snapshot()
	if err != nil {
		return Image{}, err
	}
	n, err := snap.lookup(ref)
	if err != nil {
		return Image{}, err
	}
	return s.image(snap, n)
}

// image builds the answer for a name that is in the snapshot.
func (s *Store) image(snap *snapshot, n string) (Image, error) {
	t := snap.Names[n]
	img, err := s.content(t.ID, snap.Images[t.ID])
	if err != nil {
		return Image{}, fmt.Errorf("reading image %s: %w", n, err)
	}
	img.Name, img.RepoDigest = n, t.RepoDigest
	return img, nil
}

// content returns the part of an image that its ID determines.
func (s *Store) content(id string, rec record) (Image, error) {
	s.mu.Lock()
	img, ok := s.configs[id]
	s.mu.Unlock()
	if ok {
		return img, nil
	}
	data, err := os.ReadFile(s.blobPath(strings.TrimPrefix(id, "sha256:")))
	if err != nil {
		return Image{}, err
	}
	var file v1.ConfigFile
	if err := json.Unmarshal(data, &file); err != nil {
		return Image{}, fmt.Errorf("parsing configuration %s: %w", id, err)
	}
	img = Image{ID: id, Config: file.Config, Size: rec.Size}
	for _, hex := range rec.Stack {
		dir := s.layerPath(hex)
		if _, err := os.Stat(dir); err != nil {
			return Image{}, err
		}
		img.Layers = append(img.Layers, dir)
	}
	s.mu.Lock()
	s.configs[id] = img
	s.mu.Unlock()
	return img, nil
}

// forget drops what the store remembers of images, after their files went.
func (s *Store) forget() {
	s.mu.Lock()
	clear(s.configs)
	s.mu.Unlock()
}

// stack leaves each layer once, where it is highest: overlayfs refuses a directory that is lower twice, and what the higher one
// shows hides all that the lower one could.
func stack(layers []string) []string {
	var out []string
	for i, l := range layers {
		if !slices.Contains(layers[i+1:], l) {
			out = append(out, l)
		}
	}
	return out
}
