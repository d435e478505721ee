package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// ErrNotEmpty is a directory for a layout that has files already.
var ErrNotEmpty = errors.New("directory is not empty")

// writeLayout writes an image of uncompressed layers to a directory as an OCI layout.
func writeLayout(ctx context.Context, dir string, b bundle, name string) (Image, error) {
	if entries, err := os.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Image{}, fmt.Errorf("writing layout: %w", err)
	} else if len(entries) > 0 {
		return Image{}, fmt.Errorf("writing layout to %q: %w", dir, ErrNotEmpty)
	}
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return Image{}, fmt.Errorf("writing layout: %w", err)
	}
	img := Image{Name: name}
	for _, l := range b.layers {
		if l.open == nil {
			return Image{}, fmt.Errorf("writing layout: layer %s is here only unpacked", l.diffHex)
		}
		archive, err := l.open(ctx)
		if err != nil {
			return Image{}, fmt.Errorf("writing layout: %w", err)
		}
		if err := to.WriteBlob(v1.Hash{Algorithm: "sha256", Hex: l.diffHex}, archive); err != nil {
			return Image{}, fmt.Errorf("writing layout: %w", err)
		}
		img.Size += l.size
	}
	id, err := writeLayoutBlob(to, b.config)
	if err != nil {
		return Image{}, err
	}
	img.ID = id.String()
	digest, err := writeLayoutBlob(to, b.manifest)
	if err != nil {
		return Image{}, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(b.manifest))
	if err != nil {
		return Image{}, fmt.Errorf("writing layout: %w", err)
	}
	err = to.AppendDescriptor(v1.Descriptor{
		MediaType: m.MediaType, Size: int64(len(b.manifest)), Digest: digest,
		Annotations: map[string]string{annotationImageName: name},
	})
	if err != nil {
		return Image{}, fmt.Errorf("writing layout: %w", err)
	}
	return img, nil
}

// writeLayoutBlob stores a manifest or configuration and returns its digest.
func writeLayoutBlob(to layout.Path, data []byte) (v1.Hash, error) {
	digest, _, err := v1.SHA256(bytes.NewReader(data))
	if err == nil {
		err = to.WriteBlob(digest, io.NopCloser(bytes.NewReader(data)))
	}
	if err != nil {
		return v1.Hash{}, fmt.Errorf("writing layout: %w", err)
	}
	return digest, nil
}
