package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// bundle is the content of an image on its way into the store, whether from a registry, an archive or a build.
type bundle struct {
	// manifest may be empty, as for docker archives.
	manifest []byte
	config   []byte
	layers   []layerSource
}

// Progress is how far a pull or an import is.
type Progress struct {
	// Bytes of compressed layers read so far, and how many there are to read. Layers that were present count in neither.
	Bytes, TotalBytes int64
	// Layers that are unpacked, and how many there are.
	Layers, TotalLayers int
}

// progressStep is how often a Progress callback is called at most.
const progressStep = 100 * time.Millisecond

// ingest puts an image into the store under the given names, which are normalised. The image is visible only when all of it is
// present. On an error the layers that are complete stay, so that the next attempt goes on from there.
func (s *Store) ingest(ctx context.Context, b bundle, names map[string]target, report func(Progress)) (Image, error) {
	keep, err := lockShared(s.path(gcLock))
	if err != nil {
		return Image{}, err
	}
	defer keep.unlock()
	if err := s.checkPlatform(b.config); err != nil {
		return Image{}, err
	}
	if err := s.ensureLayers(ctx, b.layers, report); err != nil {
		return Image{}, err
	}
	rec := record{Added: time.Now().UTC()}
	for _, l := range b.layers {
		rec.Layers = append(rec.Layers, l.diffHex)
		rec.Size += l.size
	}
	if rec.Stack, err = s.arrange(rec.Layers); err != nil {
		return Image{}, err
	}
	if len(b.manifest) > 0 {
		if rec.Manifest, err = s.putBlob(b.manifest); err != nil {
			return Image{}, err
		}
	}
	configHex, err := s.putBlob(b.config)
	if err != nil {
		return Image{}, err
	}
	id := "sha256:" + configHex
	first := ""
	err = s.update(func(x *index) error {
		if old, ok := x.Images[id]; ok {
			rec.Added = old.Added
			if rec.Manifest == "" {
				rec.Manifest, rec.Size = old.Manifest, old.Size
			}
		}
		x.Images[id] = rec
		for n, t := range names {
			t.ID = id
			x.Names[n] = t
			if first == "" || isDigestName(first) {
				first = n
			}
		}
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	return s.Resolve(ctx, first)
}

// ensureLayers brings all layers in, some at a time. The first error stops the rest.
func (s *Store) ensureLayers(ctx context.Context, layers []layerSource, report func(Progress)) error {
	p := &progress{report: report, at: Progress{TotalLayers: len(layers)}}
	for _, l := range layers {
		if _, err := os.Lstat(s.layerPath(l.diffHex)); errors.Is(err, fs.ErrNotExist) {
			p.at.TotalBytes += l.size
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.opts.Parallel)
	for _, l := range layers {
		g.Go(func() error {
			if err := s.ensureLayer(ctx, l, p.addBytes); err != nil {
				return err
			}
			p.addLayer()
			return nil
		})
	}
	return g.Wait()
}

// checkPlatform refuses what cannot run here. An image that names no platform is taken at its word.
func (s *Store) checkPlatform(config []byte) error {
	var c v1.ConfigFile
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("parsing configuration: %w", err)
	}
	if (c.OS != "" && c.OS != platformOS) || (c.Architecture != "" && c.Architecture != s.opts.Architecture) {
		return fmt.Errorf("%w: image is for %s/%s, this machine is %s/%s", ErrPlatform, c.OS, c.Architecture, platformOS, s.opts.Architecture)
	}
	return nil
}

// putBlob stores a manifest or configuration and returns its hex digest.
func (s *Store) putBlob(data []byte) (string, error) {
	sum := sha256.Sum256(data)
	h := hex.EncodeToString(sum[:])
	path := s.blobPath(h)
	if _, err := os.Lstat(path); err == nil {
		return h, nil
	}
	return h, s.writeDurable(path, data)
}

// platformOS is the operating system of images, whatever the store is compiled for.
const platformOS = "linux"

// progress adds up what parallel layers report.
type progress struct {
	report func(Progress)

	// mu guards at and last, and serialises report.
	mu   sync.Mutex
	at   Progress
	last time.Time
}

func (p *progress) addBytes(n int64) {
	if p.report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at.Bytes += n
	if now := time.Now(); now.Sub(p.last) >= progressStep {
		p.last = now
		p.report(p.at)
	}
}

func (p *progress) addLayer() {
	if p.report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at.Layers++
	p.report(p.at)
}
