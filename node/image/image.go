package image

import (
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Errors that callers turn into a container's waiting reason. They are wrapped with the reference and the registry's answer.
var (
	// ErrInvalidName is a reference that cannot be parsed (kubelet: InvalidImageName).
	ErrInvalidName = errors.New("invalid image name")
	// ErrNotFound is an image that the registry, or for Resolve this store, does not have.
	ErrNotFound = errors.New("image not found")
	// ErrUnauthorized is a registry that refused the credentials or wants some.
	ErrUnauthorized = errors.New("registry refused access")
	// ErrPlatform is an image without a variant for this machine's operating system and architecture.
	ErrPlatform = errors.New("no image for this platform")
	// ErrNeverPull is an image that is not present and whose name says that it is in no registry (dev.local/, ko.local/, kind.local/).
	ErrNeverPull = errors.New("image is local and not present")
)

// Image is an image that is present in the store, unpacked and ready to run.
type Image struct {
	// Name is the reference as normalised, for example "docker.io/library/nginx:1.27".
	Name string
	// ID is the digest of the configuration, "sha256:...", which is what container statuses call imageID.
	ID string
	// RepoDigest is "repository@sha256:..." of the manifest, empty for an image that never was in a registry.
	RepoDigest string
	// Config is the image's configuration: entrypoint, command, environment, user, working directory, stop signal.
	Config v1.Config
	// Layers are the absolute paths of the unpacked layers in the form that overlayfs takes as lowerdir, base first.
	Layers []string
	// Size is the sum of the compressed layers in bytes.
	Size int64
}
