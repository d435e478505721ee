package pod

import (
	"context"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/sandbox"
	"github.com/weft-dev/weft/node/volume"
)

// Images has the images of containers. Its methods may be called concurrently; errors wrap those of package image.
type Images interface {
	// Resolve finds an image that is present. It is on the path of every cold start and must not use the network.
	Resolve(ctx context.Context, ref string) (image.Image, error)
	// Pull fetches an image from its registry.
	Pull(ctx context.Context, ref string, opts image.PullOptions) (image.Image, error)
}

// Sandboxes has the namespaces and addresses of pods. Its methods may be called concurrently.
type Sandboxes interface {
	// Acquire gives the sandbox of id, a new one unless id has one.
	Acquire(ctx context.Context, id string) (*sandbox.Sandbox, error)
	// Release destroys the sandbox of id; an id without one is no error.
	Release(ctx context.Context, id string) error
}

// Objects reads what pods refer to.
type Objects interface {
	volume.Objects
	Services(ctx context.Context) ([]*v1.Service, error)
}

// The defaults of Options.
const (
	DefaultBackoffBase   = 10 * time.Second
	DefaultBackoffMax    = 5 * time.Minute
	DefaultStatusDelay   = time.Second
	DefaultClusterDomain = "cluster.local"
)

// Options are what all workers of a node share.
type Options struct {
	Client    kubernetes.Interface
	Images    Images
	Sandboxes Sandboxes
	Runtime   container.Runtime
	Objects   Objects
	Tokens    volume.Tokens
	Events    record.EventRecorder
	// Root holds a directory per pod, LogRoot the logs of all containers. Both are absolute.
	Root, LogRoot string
	// HostIP is the machine's address as pods see it, which is also their name server.
	HostIP string
	// ClusterDomain is DefaultClusterDomain when empty.
	ClusterDomain string
	// CPUs and MemoryBytes are the machine's capacity.
	CPUs        int
	MemoryBytes int64
	// BackoffBase is the pause before the second restart of a container, doubling up to BackoffMax.
	BackoffBase, BackoffMax time.Duration
	// StatusDelay is how long the first status may wait for the pod to become ready, to save a write on every cold start.
	StatusDelay time.Duration
	Log         *slog.Logger
}

// WithDefaults returns the options with every empty field that has a default set to it.
func (o Options) WithDefaults() Options {
	if o.BackoffBase == 0 {
		o.BackoffBase = DefaultBackoffBase
	}
	if o.BackoffMax == 0 {
		o.BackoffMax = max(DefaultBackoffMax, o.BackoffBase)
	}
	if o.StatusDelay == 0 {
		o.StatusDelay = DefaultStatusDelay
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = DefaultClusterDomain
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
