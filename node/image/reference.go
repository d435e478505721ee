package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// The registries that exist in no network: images below them are built or imported. The names are those that ko and Knative use.
const (
	localDev  = "dev.local"
	localKo   = "ko.local"
	localKind = "kind.local"
)

// dockerHub is how users write the registry that the library calls by its host.
const dockerHub = "docker.io"

// reference is a parsed reference with its normalised name.
type reference struct {
	ref name.Reference
	// name is "registry/repository:tag" or "registry/repository@sha256:...".
	name string
	// repo is "registry/repository".
	repo string
}

// IsLocal reports whether the reference names an image that is in no registry, such as dev.local/hello.
func IsLocal(ref string) bool {
	r, err := parseReference(ref)
	return err == nil && r.local()
}

// parseReference normalises a reference: docker.io and library/ are filled in, the tag defaults to latest, and of a tag and a digest
// the digest counts.
func parseReference(s string) (reference, error) {
	opts := []name.Option{name.WeakValidation}
	plain, isLocalhost := strings.CutPrefix(s, "localhost/")
	if isLocalhost {
		// The library sees a registry only in what has a dot or a port, docker and podman also in this.
		opts = append(opts, name.WithDefaultRegistry("localhost"))
	}
	ref, err := name.ParseReference(plain, opts...)
	if err != nil {
		return reference{}, fmt.Errorf("%w: %q: %w", ErrInvalidName, s, err)
	}
	repo := ref.Context().RegistryStr()
	if repo == name.DefaultRegistry {
		repo = dockerHub
	}
	repo += "/" + ref.Context().RepositoryStr()
	r := reference{ref: ref, repo: repo}
	if d, ok := ref.(name.Digest); ok {
		r.name = repo + "@" + d.DigestStr()
	} else {
		r.name = repo + ":" + ref.Identifier()
	}
	return r, nil
}

// local reports whether the image is in no registry.
func (r reference) local() bool {
	switch r.ref.Context().RegistryStr() {
	case localDev, localKo, localKind:
		return true
	}
	return false
}

// digested reports whether the reference is by digest.
func (r reference) digested() bool {
	_, ok := r.ref.(name.Digest)
	return ok
}

// isDigestName reports whether a normalised name is by digest.
func isDigestName(n string) bool { return strings.Contains(n, "@") }

// idPrefixMin is the shortest part of an ID that Resolve takes, the length that docker and crictl print.
const idPrefixMin = 12

// idPrefix returns the hexadecimal start of an image ID when s can be one.
func idPrefix(s string) (string, bool) {
	hex := strings.TrimPrefix(s, "sha256:")
	if len(hex) < idPrefixMin || len(hex) > 64 {
		return "", false
	}
	for _, c := range hex {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return hex, true
}
