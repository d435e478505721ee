package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// ErrCorrupt is a layer, manifest or configuration whose content does not have the digest that names it.
var ErrCorrupt = errors.New("content does not match its digest")

// fewFiles is up to how many files a layer is flushed file by file. Beyond, one flush of the whole file system is cheaper, although
// it also writes what other programs have not written yet.
const fewFiles = 32

// layerSource is a layer that can be read.
type layerSource struct {
	// diffHex is the hex digest of the uncompressed archive.
	diffHex string
	// size of what open returns, for progress.
	size int64
	// open starts reading from the beginning; nil for a layer that must be present.
	open func(ctx context.Context) (io.ReadCloser, error)
}

// ensureLayer unpacks a layer unless it is present. count learns of each read compressed byte, with a negative number when an
// attempt failed and its bytes come again.
func (s *Store) ensureLayer(ctx context.Context, src layerSource, count func(int64)) error {
	_, err := s.layers.do(ctx, src.diffHex, func() (struct{}, error) {
		_, err := os.Lstat(s.layerPath(src.diffHex))
		if !errors.Is(err, fs.ErrNotExist) {
			return struct{}{}, err
		}
		if src.open == nil {
			return struct{}{}, fmt.Errorf("layer sha256:%s: %w", src.diffHex, fs.ErrNotExist)
		}
		return struct{}{}, s.unpackLayer(ctx, src, count)
	})
	return err
}

// unpackLayer reads, verifies and unpacks a layer below tmp and renames it into place.
func (s *Store) unpackLayer(ctx context.Context, src layerSource, count func(int64)) error {
	tmp, err := os.MkdirTemp(s.path(tempDir), "layer-*")
	if err != nil {
		return fmt.Errorf("unpacking layer: %w", err)
	}
	defer func() {
		if err := os.RemoveAll(tmp); err != nil {
			s.log.Error("removing temporary layer", "path", tmp, "err", err)
		}
	}()
	dir := filepath.Join(tmp, "fs")
	// The layer's own root: its mode shows as that of "/" in the container when no entry says otherwise.
	if err := os.Mkdir(dir, dirMode); err != nil {
		return fmt.Errorf("unpacking layer: %w", err)
	}
	rc, err := src.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }()
	u, err := unpackVerified(dir, &countingReader{ctx: ctx, r: rc, count: count}, src.diffHex)
	if err != nil {
		return fmt.Errorf("layer sha256:%s: %w", src.diffHex, err)
	}
	if err := s.noteImplied(src.diffHex, u.implied); err != nil {
		return err
	}
	return s.place(dir, src.diffHex, u.files)
}

// place makes an unpacked layer durable and visible.
func (s *Store) place(dir, name string, files int) error {
	if err := syncTree(dir, files); err != nil {
		return fmt.Errorf("flushing layer: %w", err)
	}
	err := os.Rename(dir, s.layerPath(name))
	if err != nil && !errors.Is(err, fs.ErrExist) { // another process had the same layer
		return fmt.Errorf("placing layer: %w", err)
	}
	return syncPath(s.path(layersDir))
}

// unpackVerified unpacks a possibly compressed archive and reads it to its end, since both digests cover also what follows the
// archive's own end.
func unpackVerified(dir string, r io.Reader, diffHex string) (*unpacker, error) {
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = plain.Close() }()
	sum := sha256.New()
	tee := io.TeeReader(plain, sum)
	u, err := unpack(dir, tee)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return nil, fmt.Errorf("reading archive: %w", err)
	}
	// The source verifies the compressed bytes when it reports the end, which a decompressor need not have asked for.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fmt.Errorf("reading archive: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != diffHex {
		return nil, fmt.Errorf("%w: unpacked content has sha256:%s", ErrCorrupt, got)
	}
	return u, nil
}

// decompress recognises gzip, zstd and plain archives by their first bytes, because media types of layers are often wrong.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading archive: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("reading gzip: %w", err)
		}
		return zr, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("reading zstd: %w", err)
		}
		return zr.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// countingReader reports progress and stops when ctx ends, also for sources that know no context.
type countingReader struct {
	ctx   context.Context //nolint:containedctx // an io.Reader has no other way
	r     io.Reader
	count func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if c.count != nil && n > 0 {
		c.count(int64(n))
	}
	return n, err
}

// syncTree makes a tree durable. A layer that is in place is taken for complete ever after, so it must not come back empty from a
// loss of power.
func syncTree(dir string, files int) error {
	if files > fewFiles {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return unix.Syncfs(int(f.Fd()))
	}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || (!d.Type().IsRegular() && !d.IsDir()) {
			return err
		}
		return syncPath(p)
	})
}
