package image

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Names below the store's directory. Everything that is not under tmp is complete: it got there by a rename.
const (
	indexFile  = "index.json"
	indexLock  = "index.lock"
	gcLock     = "gc.lock"
	blobsDir   = "blobs/sha256"
	layersDir  = "layers"
	impliedDir = "implied"
	tempDir    = "tmp"
	dirMode    = 0o755
	defaultFan = 3
)

// Options configure a Store. The zero value works.
type Options struct {
	// Parallel is how many layers of one image are fetched and unpacked at the same time. Default 3.
	Parallel int
	// Architecture in Go's words selects the variant of an image. Default runtime.GOARCH.
	Architecture string
	// Transport carries the requests to registries. Default remote.DefaultTransport.
	Transport http.RoundTripper
	// Logger receives what went wrong without failing a call. Default slog.Default.
	Logger *slog.Logger
}

// Store is a directory of images. Its methods may be called concurrently, and any number of processes may open the same directory:
// every change is a rename, changes of the index are serialised by a file lock, and a process that dies leaves only garbage below tmp.
type Store struct {
	dir  string
	opts Options
	log  *slog.Logger

	// pulls and layers coalesce equal work in this process.
	pulls  flights[Image]
	layers flights[struct{}]

	cache indexCache

	// mu guards configs.
	mu sync.Mutex
	// configs holds the images built from index records. Both are immutable: the key is the digest of the configuration.
	configs map[string]Image
}

// Open opens the store below dir and creates it when it is missing. Leftovers of processes that died are removed unless another
// process is at work in the store.
func Open(dir string, opts Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	for _, sub := range []string{blobsDir, layersDir, impliedDir, tempDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), dirMode); err != nil {
			return nil, fmt.Errorf("creating image store: %w", err)
		}
	}
	if opts.Parallel <= 0 {
		opts.Parallel = defaultFan
	}
	if opts.Architecture == "" {
		opts.Architecture = runtime.GOARCH
	}
	if opts.Transport == nil {
		opts.Transport = remote.DefaultTransport
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s := &Store{dir: dir, opts: opts, log: opts.Logger, configs: map[string]Image{}}
	if err := s.sweep(); err != nil {
		return nil, err
	}
	return s, nil
}

// sweep removes what dead processes left below tmp. A shared holder of the lock is a living process with files there.
func (s *Store) sweep() error {
	lock, err := tryLock(s.path(gcLock))
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.unlock()
	return s.sweepLocked()
}

// sweepLocked is sweep for a caller that holds the garbage lock.
func (s *Store) sweepLocked() error {
	entries, err := os.ReadDir(s.path(tempDir))
	if err != nil {
		return fmt.Errorf("reading temporary files: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(s.path(tempDir, e.Name())); err != nil {
			return fmt.Errorf("removing temporary file: %w", err)
		}
	}
	return nil
}

// path joins elements to the store's directory.
func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// layerPath is where a layer lies unpacked. It is named by the digest of its uncompressed archive, or as arrange says.
func (s *Store) layerPath(hexName string) string { return s.path(layersDir, hexName) }

// blobPath is where the manifest or configuration with this digest lies.
func (s *Store) blobPath(hex string) string { return s.path(blobsDir, hex) }
