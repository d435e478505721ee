package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrNotArchive is a file that holds no image in a known form.
var ErrNotArchive = errors.New("neither an OCI layout nor a docker archive")

// The annotations by which tools name the images of an OCI layout: containerd and docker the whole reference, others often the tag only.
const (
	annotationImageName = "io.containerd.image.name"
	annotationRefName   = "org.opencontainers.image.ref.name"
)

// ImportOptions say how to import. The zero value takes the names that the archive has.
type ImportOptions struct {
	// Name is given to the image instead of the archive's names. The archive must then hold one image.
	Name string
	// Progress is as for Pull.
	Progress func(Progress)
}

// named is an image of an archive before it is in the store.
type named struct {
	bundle bundle
	names  []string
}

// Import brings the images of an OCI layout (a directory, or a tar of one) or of a docker archive (`docker save`) into the store and
// returns their names as normalised. Archives may be compressed with gzip or zstd.
func (s *Store) Import(ctx context.Context, path string, opts ImportOptions) ([]string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("importing: %w", err)
	}
	if fi.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, fmt.Errorf("importing: %w", err)
		}
		defer func() { _ = root.Close() }()
		return wrapImport(path)(s.importFrom(ctx, dirFS{root}, opts))
	}
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("importing: %w", err)
	}
	defer func() { _ = f.Close() }()
	if !isPlainTar(f) {
		return wrapImport(path)(s.ImportReader(ctx, f, opts))
	}
	t, err := newTarFS(f)
	if err != nil {
		return nil, fmt.Errorf("importing %q: %w", path, err)
	}
	return wrapImport(path)(s.importFrom(ctx, t, opts))
}

// wrapImport names the file in an error.
func wrapImport(path string) func([]string, error) ([]string, error) {
	return func(names []string, err error) ([]string, error) {
		if err != nil {
			err = fmt.Errorf("importing %q: %w", path, err)
		}
		return names, err
	}
}

// ImportReader is Import for an archive from a pipe. The archive is copied to disk first, since no form of it can be read in one pass.
func (s *Store) ImportReader(ctx context.Context, r io.Reader, opts ImportOptions) ([]string, error) {
	keep, err := lockShared(s.path(gcLock))
	if err != nil {
		return nil, err
	}
	defer keep.unlock()
	f, err := s.spool(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	t, err := newTarFS(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotArchive, err)
	}
	return s.importFrom(ctx, t, opts)
}

// importFrom reads what the archive offers and ingests it.
func (s *Store) importFrom(ctx context.Context, a archiveFS, opts ImportOptions) ([]string, error) {
	images, err := s.readArchive(a)
	if err != nil {
		return nil, err
	}
	if opts.Name != "" {
		if len(images) != 1 {
			return nil, fmt.Errorf("%w: the archive holds %d images, one name cannot be given to all", ErrInvalidName, len(images))
		}
		images[0].names = []string{opts.Name}
	}
	var out []string
	for _, img := range images {
		if len(img.names) == 0 {
			return out, fmt.Errorf("%w: the archive names no image, so a name must be given", ErrInvalidName)
		}
		targets := map[string]target{}
		for _, n := range img.names {
			r, err := parseReference(n)
			if err != nil {
				return out, err
			}
			if r.digested() {
				return out, fmt.Errorf("%w: %q: an import cannot be named by digest", ErrInvalidName, n)
			}
			targets[r.name] = target{}
		}
		if _, err := s.ingest(ctx, img.bundle, targets, opts.Progress); err != nil {
			return out, err
		}
		for n := range targets {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// readArchive tells the two forms apart. docker save writes both into one archive; its own has the better names.
func (s *Store) readArchive(a archiveFS) ([]named, error) {
	data, err := readDocument(a, "manifest.json")
	if err == nil {
		return readDocker(a, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err = readDocument(a, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotArchive
	}
	if err != nil {
		return nil, err
	}
	return s.readLayout(a, data)
}

// dockerManifest is one image of docker's manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readDocker reads the images of a docker archive.
func readDocker(a archiveFS, data []byte) ([]named, error) {
	var manifests []dockerManifest
	if err := json.Unmarshal(data, &manifests); err != nil {
		return nil, fmt.Errorf("reading manifest.json: %w", err)
	}
	var out []named
	for _, m := range manifests {
		config, err := readDocument(a, m.Config)
		if err != nil {
			return nil, err
		}
		img := named{names: m.RepoTags, bundle: bundle{config: config}}
		if img.bundle.layers, err = archiveLayers(a, config, m.Layers); err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: manifest.json lists no image", ErrNotArchive)
	}
	return out, nil
}

// archiveLayers pairs the files of layers with their digests in the configuration.
func archiveLayers(a archiveFS, config []byte, files []string) ([]layerSource, error) {
	var c v1.ConfigFile
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("parsing configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(files) {
		return nil, fmt.Errorf("%w: configuration has %d layers, manifest %d", ErrCorrupt, len(c.RootFS.DiffIDs), len(files))
	}
	var out []layerSource
	for i, n := range files {
		diff := c.RootFS.DiffIDs[i]
		if err := checkHash(diff); err != nil {
			return nil, err
		}
		rc, size, err := a.open(n)
		if err != nil {
			return nil, fmt.Errorf("opening layer: %w", err)
		}
		_ = rc.Close()
		out = append(out, layerSource{diffHex: diff.Hex, size: size, open: func(context.Context) (io.ReadCloser, error) {
			rc, _, err := a.open(n)
			return rc, err
		}})
	}
	return out, nil
}

// checkHash accepts only what is safe as a file name and what this package can compute.
func checkHash(h v1.Hash) error {
	if raw, err := hex.DecodeString(h.Hex); h.Algorithm != "sha256" || err != nil || len(raw) != sha256.Size || strings.ToLower(h.Hex) != h.Hex {
		return fmt.Errorf("%w: %q is not a sha256 digest", ErrCorrupt, h)
	}
	return nil
}

// readLayout reads the images of an OCI layout: each entry of its index that can run here. Entries for other platforms are left out
// unless nothing remains, which is ErrPlatform.
func (s *Store) readLayout(a archiveFS, data []byte) ([]named, error) {
	var idx v1.IndexManifest
	if err := json.Unmarshal(data, &idx); err != nil {
		return nil, fmt.Errorf("reading index.json: %w", err)
	}
	var out []named
	var skipped error
	for _, d := range idx.Manifests {
		img, err := s.readEntry(a, d, 0)
		if errors.Is(err, ErrPlatform) {
			skipped = err
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, named{bundle: img, names: layoutNames(d.Annotations)})
	}
	if len(out) == 0 && skipped == nil {
		return nil, fmt.Errorf("%w: index.json lists no image", ErrNotArchive)
	}
	if len(out) == 0 {
		return nil, skipped
	}
	return out, nil
}

// layoutNames returns the names that annotations give. A bare tag names nothing.
func layoutNames(annotations map[string]string) []string {
	if n := annotations[annotationImageName]; n != "" {
		return []string{n}
	}
	if n := annotations[annotationRefName]; strings.ContainsAny(n, "/:") {
		return []string{n}
	}
	return nil
}

// readEntry follows an entry of an index to an image for this machine.
func (s *Store) readEntry(a archiveFS, d v1.Descriptor, depth int) (bundle, error) {
	var b bundle
	data, err := readBlob(a, d.Digest)
	if err != nil {
		return b, err
	}
	if d.MediaType.IsIndex() {
		var idx v1.IndexManifest
		if err := json.Unmarshal(data, &idx); err != nil {
			return b, fmt.Errorf("reading index %s: %w", d.Digest, err)
		}
		child, err := s.choose(idx.Manifests)
		if err != nil {
			return b, err
		}
		if depth >= maxIndexDepth {
			return b, fmt.Errorf("reading index: more than %d levels", maxIndexDepth)
		}
		return s.readEntry(a, child, depth+1)
	}
	var m v1.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return b, fmt.Errorf("reading manifest %s: %w", d.Digest, err)
	}
	b.manifest = data
	if b.config, err = readBlob(a, m.Config.Digest); err != nil {
		return b, err
	}
	if err := s.checkPlatform(b.config); err != nil {
		return b, err
	}
	var files []string
	for _, l := range m.Layers {
		if err := checkHash(l.Digest); err != nil {
			return b, err
		}
		files = append(files, layoutPath(l.Digest))
	}
	b.layers, err = archiveLayers(a, b.config, files)
	return b, err
}

// readBlob reads and verifies a small blob of a layout.
func readBlob(a archiveFS, h v1.Hash) ([]byte, error) {
	if err := checkHash(h); err != nil {
		return nil, err
	}
	data, err := readDocument(a, layoutPath(h))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != h.Hex {
		return nil, fmt.Errorf("%w: blob %s", ErrCorrupt, h)
	}
	return data, nil
}

// layoutPath is where an OCI layout has a blob.
func layoutPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
