package volume

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/downward"
)

// retryUpdate is the pause after an update of a volume that failed, as when the API cannot be reached.
const retryUpdate = 5 * time.Second

// Objects reads and watches config maps and secrets. A missing object is an API "not found" error. The watch methods call changed
// after every change until release is called. All methods may be called concurrently.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	WatchConfigMap(namespace, name string, changed func()) (release func())
	WatchSecret(namespace, name string, changed func()) (release func())
}

// Tokens issues service account tokens bound to a pod. It may be called concurrently.
type Tokens interface {
	Token(ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// Options of a Set.
type Options struct {
	// Dir is the absolute path of the directory that belongs to the pod's volumes alone.
	Dir string
	// Source is the pod with its addresses.
	Source  downward.Source
	Objects Objects
	Tokens  Tokens
	// Log may be nil.
	Log *slog.Logger
}

// Set is the volumes of one pod.
type Set struct {
	options Options
	tokens  tokenCache
	// dirty has one element when a volume may have to be written again.
	dirty    chan struct{}
	releases []func()

	// mu guards pod, which Update replaces.
	mu  sync.Mutex
	pod *v1.Pod

	// writing guards the files of the data volumes.
	writing sync.Mutex
}

// Error is a volume that could not be made.
type Error struct {
	Volume string
	Err    error
}

// Error is the message of kubelet's FailedMount event.
func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns the volumes of a pod without making any, and begins to watch the objects that they come from. Close ends that.
func New(o Options) *Set {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Set{options: o, pod: o.Source.Pod, dirty: make(chan struct{}, 1)}
	namespace := o.Source.Pod.Namespace
	for i := range o.Source.Pod.Spec.Volumes {
		for _, ref := range references(&o.Source.Pod.Spec.Volumes[i]) {
			if ref.secret {
				s.releases = append(s.releases, o.Objects.WatchSecret(namespace, ref.name, s.mark))
			} else {
				s.releases = append(s.releases, o.Objects.WatchConfigMap(namespace, ref.name, s.mark))
			}
		}
	}
	return s
}

// Changed has an element after an object of a volume has changed; a caller whose Setup failed for a missing object waits for it.
func (s *Set) Changed() <-chan struct{} { return s.dirty }

func (s *Set) mark() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// Close stops watching. The volumes stay as they are.
func (s *Set) Close() {
	for _, release := range s.releases {
		release()
	}
}

// Update replaces the pod, whose labels and annotations a volume may show.
func (s *Set) Update(pod *v1.Pod) {
	s.mu.Lock()
	changed := !maps.Equal(s.pod.Labels, pod.Labels) || !maps.Equal(s.pod.Annotations, pod.Annotations)
	s.pod = pod
	s.mu.Unlock()
	if changed {
		s.mark()
	}
}

func (s *Set) source() downward.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.options.Source
	src.Pod = s.pod
	return src
}

// Setup makes all volumes, those that exist included, so that it can be repeated. The error is an *Error.
func (s *Set) Setup(ctx context.Context) error {
	src := s.source()
	if len(src.Pod.Spec.Volumes) == 0 {
		return nil
	}
	if err := os.MkdirAll(s.options.Dir, 0o750); err != nil {
		return fmt.Errorf("making the directory of volumes: %w", err)
	}
	if err := s.mountMemory(src.Pod); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range src.Pod.Spec.Volumes {
		v := &src.Pod.Spec.Volumes[i]
		group.Go(func() error {
			if err := s.render(ctx, src, v); err != nil {
				return &Error{Volume: v.Name, Err: err}
			}
			return nil
		})
	}
	return group.Wait() //nolint:wrapcheck // an *Error already
}

// Run writes volumes again when their objects or tokens change, until ctx ends. Call it after Setup.
func (s *Set) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	if next := s.tokens.next(); !next.IsZero() {
		timer.Reset(time.Until(next))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dirty:
		case <-timer.C:
		}
		if err := s.rewrite(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.options.Log.Warn("updating a volume failed", "err", err)
			timer.Reset(retryUpdate)
			continue
		}
		if next := s.tokens.next(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

func (s *Set) rewrite(ctx context.Context) error {
	src := s.source()
	for i := range src.Pod.Spec.Volumes {
		v := &src.Pod.Spec.Volumes[i]
		if !isData(v) {
			continue
		}
		if err := s.render(ctx, src, v); err != nil {
			return &Error{Volume: v.Name, Err: err}
		}
	}
	return nil
}

func (s *Set) render(ctx context.Context, src downward.Source, v *v1.Volume) error {
	switch {
	case isData(v):
		files, err := s.payload(ctx, src, v)
		if err != nil {
			return err
		}
		s.writing.Lock()
		defer s.writing.Unlock()
		return writeAtomic(s.dataDir(v), files, fsGroup(src.Pod))
	case v.EmptyDir != nil:
		return makeEmptyDir(s.Path(v), v.EmptyDir, fsGroup(src.Pod))
	case v.HostPath != nil:
		return checkHostPath(v.HostPath)
	default:
		return fmt.Errorf("the type of volume %q is not supported by this node", v.Name)
	}
}

// Path is where a volume of the pod is on this machine.
func (s *Set) Path(v *v1.Volume) string {
	switch {
	case v.HostPath != nil:
		return v.HostPath.Path
	case isData(v):
		return s.dataDir(v)
	default:
		return filepath.Join(s.options.Dir, v.Name)
	}
}

// dataDir keeps secret content in memory and everything else on disk.
func (s *Set) dataDir(v *v1.Volume) string {
	if isSecret(v) {
		return filepath.Join(s.options.Dir, memoryDir, v.Name)
	}
	return filepath.Join(s.options.Dir, v.Name)
}

func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}
