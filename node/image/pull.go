package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxIndexDepth bounds indexes inside indexes.
const maxIndexDepth = 4

// PullOptions say how to pull. The zero value pulls anonymously.
type PullOptions struct {
	// Keychain has the credentials. With a *Keychain of ParsePullSecrets all that match are tried in turn, as kubelet does.
	Keychain authn.Keychain
	// Progress is called now and then, and once per finished layer, never concurrently. Nil is fine. When another call pulls the same
	// reference at the same time, only the first call's Progress is called.
	Progress func(Progress)
}

// Pull brings an image from its registry into the store, even when it is present: a tag may have moved, and the registry may refuse
// these credentials. Layers that are present are not fetched again. Concurrent pulls of one reference with equal credentials share
// the work. The error wraps one of the package's errors where the reason is known, and holds the registry's own words. A local name
// is never asked of a registry: it is present or ErrNeverPull.
func (s *Store) Pull(ctx context.Context, ref string, opts PullOptions) (Image, error) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	if r.local() {
		return s.Resolve(ctx, ref)
	}
	auths, err := authenticators(ctx, opts.Keychain, r)
	if err != nil {
		return Image{}, fmt.Errorf("pulling %s: %w", r.name, err)
	}
	key, err := flightKey(ctx, r, auths)
	if err != nil {
		return Image{}, fmt.Errorf("pulling %s: %w", r.name, err)
	}
	img, err := s.pulls.do(ctx, key, func() (Image, error) { return s.pull(ctx, r, auths, opts.Progress) })
	if err != nil {
		return Image{}, fmt.Errorf("pulling %s: %w", r.name, err)
	}
	return img, nil
}

// authenticators returns what to try, at least one.
func authenticators(ctx context.Context, kc authn.Keychain, r reference) ([]authn.Authenticator, error) {
	if kc == nil {
		return []authn.Authenticator{authn.Anonymous}, nil
	}
	if all, ok := kc.(*Keychain); ok {
		return all.all(r.ref.Context()), nil
	}
	a, err := authn.Resolve(ctx, kc, r.ref.Context())
	if err != nil {
		return nil, fmt.Errorf("finding credentials: %w", err)
	}
	return []authn.Authenticator{a}, nil
}

// flightKey tells pulls apart that must not share a result: nobody gets an image on another's credentials.
func flightKey(ctx context.Context, r reference, auths []authn.Authenticator) (string, error) {
	sum := sha256.New()
	for _, a := range auths {
		c, err := authn.Authorization(ctx, a)
		if err != nil {
			return "", fmt.Errorf("finding credentials: %w", err)
		}
		if err := json.NewEncoder(sum).Encode(c); err != nil {
			return "", fmt.Errorf("finding credentials: %w", err)
		}
	}
	return r.name + " " + hex.EncodeToString(sum.Sum(nil)), nil
}

// pull is Pull for one caller. It tries each set of credentials until one is accepted; the last refusal is the error.
func (s *Store) pull(ctx context.Context, r reference, auths []authn.Authenticator, report func(Progress)) (Image, error) {
	var refused error
	for _, a := range auths {
		conn, err := s.connect(ctx, r.ref.Context(), a)
		if err == nil {
			var img Image
			if img, err = s.pullOver(ctx, conn, r, report); err == nil {
				return img, nil
			}
		}
		if refused = classify(err); !errors.Is(refused, ErrUnauthorized) {
			break
		}
	}
	return Image{}, refused
}

// pullOver is pull for one set of credentials.
func (s *Store) pullOver(ctx context.Context, conn *connection, r reference, report func(Progress)) (Image, error) {
	if img, ok := s.unchanged(ctx, conn, r); ok {
		return img, nil
	}
	desc, err := remote.Get(r.ref, conn.options...)
	if err != nil {
		return Image{}, err
	}
	img, err := s.selectImage(conn, desc, 0)
	if err != nil {
		return Image{}, err
	}
	b, digest, err := conn.bundle(img)
	if err != nil {
		return Image{}, err
	}
	top := target{RepoDigest: r.repo + "@" + desc.Digest.String()}
	leaf := target{RepoDigest: r.repo + "@" + digest.String()}
	names := map[string]target{top.RepoDigest: top, leaf.RepoDigest: leaf, r.name: top}
	got, err := s.ingest(ctx, b, names, report)
	if err != nil {
		return Image{}, err
	}
	got.Name, got.RepoDigest = r.name, top.RepoDigest
	return got, nil
}

// unchanged returns the image that is present when the registry says that the reference still names it. That is one small request,
// which matters because pods with the pull policy Always ask at each start. Any doubt is for the long way, which also has the
// registry's words when something is wrong.
func (s *Store) unchanged(ctx context.Context, conn *connection, r reference) (Image, bool) {
	present, err := s.Resolve(ctx, r.name)
	if err != nil || present.Name != r.name || present.RepoDigest == "" {
		return Image{}, false
	}
	desc, err := remote.Head(r.ref, conn.options...)
	return present, err == nil && present.RepoDigest == r.repo+"@"+desc.Digest.String()
}

// selectImage follows an index to the image for this machine.
func (s *Store) selectImage(conn *connection, desc *remote.Descriptor, depth int) (v1.Image, error) {
	if !desc.MediaType.IsIndex() {
		return desc.Image()
	}
	idx, err := desc.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("reading index: %w", err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("reading index: %w", err)
	}
	child, err := s.choose(m.Manifests)
	if err != nil {
		return nil, err
	}
	if depth >= maxIndexDepth {
		return nil, fmt.Errorf("reading index: more than %d levels", maxIndexDepth)
	}
	next, err := remote.Get(conn.repo.Digest(child.Digest.String()), conn.options...)
	if err != nil {
		return nil, err
	}
	return s.selectImage(conn, next, depth+1)
}

// choose picks the entry of an index for this machine: a matching platform, else a nested index or an only image that names none.
func (s *Store) choose(entries []v1.Descriptor) (v1.Descriptor, error) {
	var offered []string
	var unnamed []v1.Descriptor
	for _, d := range entries {
		switch p := d.Platform; {
		case !d.MediaType.IsIndex() && !d.MediaType.IsImage():
		case p == nil || (p.OS == "" && p.Architecture == ""):
			unnamed = append(unnamed, d)
		case p.OS == platformOS && p.Architecture == s.opts.Architecture:
			return d, nil
		case p.OS != "unknown": // attestations of BuildKit
			offered = append(offered, p.String())
		}
	}
	if len(unnamed) == 1 {
		return unnamed[0], nil
	}
	slices.Sort(offered)
	return v1.Descriptor{}, fmt.Errorf("%w: need %s/%s, the index has %s", ErrPlatform, platformOS, s.opts.Architecture,
		strings.Join(slices.Compact(offered), ", "))
}

// bundle describes a registry's image. No layer is read yet.
func (c *connection) bundle(img v1.Image) (bundle, v1.Hash, error) {
	var b bundle
	digest, err := img.Digest()
	if err != nil {
		return b, digest, fmt.Errorf("reading manifest: %w", err)
	}
	if b.manifest, err = img.RawManifest(); err != nil {
		return b, digest, fmt.Errorf("reading manifest: %w", err)
	}
	m, err := img.Manifest()
	if err != nil {
		return b, digest, fmt.Errorf("reading manifest: %w", err)
	}
	if b.config, err = img.RawConfigFile(); err != nil {
		return b, digest, fmt.Errorf("reading configuration: %w", err)
	}
	var file v1.ConfigFile
	if err := json.Unmarshal(b.config, &file); err != nil {
		return b, digest, fmt.Errorf("parsing configuration: %w", err)
	}
	if len(file.RootFS.DiffIDs) != len(m.Layers) {
		return b, digest, fmt.Errorf("%w: configuration has %d layers, manifest %d", ErrCorrupt, len(file.RootFS.DiffIDs), len(m.Layers))
	}
	for i, d := range m.Layers {
		diff := file.RootFS.DiffIDs[i]
		if err := checkHash(diff); err != nil {
			return b, digest, err
		}
		b.layers = append(b.layers, layerSource{diffHex: diff.Hex, size: d.Size, open: func(ctx context.Context) (io.ReadCloser, error) {
			return c.layer(ctx, img, d)
		}})
	}
	return b, digest, nil
}

// layer starts reading a layer. The library reads those that are not, or not only, in the registry.
func (c *connection) layer(ctx context.Context, img v1.Image, d v1.Descriptor) (io.ReadCloser, error) {
	if len(d.URLs) == 0 && d.Data == nil {
		return c.blob(ctx, d.Digest, d.Size)
	}
	l, err := img.LayerByDigest(d.Digest)
	if err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", d.Digest, err)
	}
	return l.Compressed()
}

// classify adds the package's error to a registry's answer.
func classify(err error) error {
	te, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return err
	}
	for _, d := range te.Errors {
		switch d.Code {
		case transport.ManifestUnknownErrorCode, transport.NameUnknownErrorCode, transport.BlobUnknownErrorCode:
			return fmt.Errorf("%w: %w", ErrNotFound, err)
		case transport.UnauthorizedErrorCode, transport.DeniedErrorCode:
			return fmt.Errorf("%w: %w", ErrUnauthorized, err)
		}
	}
	switch te.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return err
}
