package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// maxDocument bounds manifests, indexes and configurations in archives, as registries do.
const maxDocument = 8 << 20

// archiveFS is a directory of files that can each be opened any number of times, at the same time.
type archiveFS interface {
	// open returns the file at a slash-separated path and its size. The error wraps fs.ErrNotExist when there is none.
	open(name string) (io.ReadCloser, int64, error)
}

// dirFS is an OCI layout in a directory. The root keeps links from leading out of it.
type dirFS struct{ root *os.Root }

func (d dirFS) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// tarFS is an uncompressed archive with the places of its files.
type tarFS struct {
	file  io.ReaderAt
	files map[string]span
	links map[string]string
}

type span struct{ offset, size int64 }

// offsetReader knows how far an archive has been read.
type offsetReader struct {
	r  io.ReadSeeker
	at int64
}

func (o *offsetReader) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	o.at += int64(n)
	return n, err
}

func (o *offsetReader) Seek(offset int64, whence int) (int64, error) {
	at, err := o.r.Seek(offset, whence)
	o.at = at
	return at, err
}

// newTarFS reads the headers of an archive.
func newTarFS(f *os.File) (*tarFS, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t := &tarFS{file: f, files: map[string]span{}, links: map[string]string{}}
	or := &offsetReader{r: f}
	tr := tar.NewReader(or)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading archive: %w", err)
		}
		n := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			t.files[n] = span{or.at, h.Size}
		case tar.TypeSymlink: // docker save names a layer that two images share once
			t.links[n] = path.Join("/", path.Dir(n), h.Linkname)[1:] //nolint:gosec // a key of the map, never a path of this machine
		case tar.TypeLink:
			t.links[n] = path.Clean("/" + h.Linkname)[1:]
		}
	}
}

func (t *tarFS) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean("/" + name)[1:]
	for range maxLinks {
		if s, ok := t.files[name]; ok {
			return io.NopCloser(io.NewSectionReader(t.file, s.offset, s.size)), s.size, nil
		}
		to, ok := t.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, 0, fmt.Errorf("opening %q in the archive: %w", name, fs.ErrNotExist)
}

// readDocument reads a small file whole.
func readDocument(a archiveFS, name string) ([]byte, error) {
	rc, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	if size > maxDocument {
		return nil, fmt.Errorf("reading %q: %d bytes are too many", name, size)
	}
	data, err := io.ReadAll(io.LimitReader(rc, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	return data, nil
}

// spool copies an archive into the store's temporary directory, uncompressed, because its files are needed in another order than
// theirs. The caller closes and removes it.
func (s *Store) spool(ctx context.Context, r io.Reader) (*os.File, error) {
	plain, err := decompress(&countingReader{ctx: ctx, r: r})
	if err != nil {
		return nil, err
	}
	defer func() { _ = plain.Close() }()
	f, err := os.CreateTemp(s.path(tempDir), "archive-*")
	if err != nil {
		return nil, fmt.Errorf("copying archive: %w", err)
	}
	if _, err := io.Copy(f, plain); err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, fmt.Errorf("copying archive: %w", err)
	}
	return f, nil
}

// isPlainTar reports whether a file can be used where it lies.
func isPlainTar(f *os.File) bool {
	var block [512]byte
	if _, err := f.ReadAt(block[:], 0); err != nil {
		return false
	}
	return strings.HasPrefix(string(block[257:]), "ustar")
}
