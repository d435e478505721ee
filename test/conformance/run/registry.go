package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// tag is the tag of all images; latest would mean that each start of a pod asks the registry.
const tag = "v1"

// imageRegistry is a registry on loopback. Its host is an address, so that everybody takes it as plain HTTP, and ends in no .local,
// so that tags are resolved to digests.
type imageRegistry struct {
	host   string
	server *http.Server
}

// serveImages starts a registry that has the images of the layouts.
func serveImages(ctx context.Context, layouts map[string]string) (*imageRegistry, error) {
	progress("starting the registry")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	r := &imageRegistry{host: listener.Addr().String(), server: &http.Server{
		Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 10 * time.Second,
	}}
	go func() { _ = r.server.Serve(listener) }()
	for image, dir := range layouts {
		if err := r.push(ctx, image, dir); err != nil {
			r.Close()
			return nil, fmt.Errorf("pushing image %s: %w", image, err)
		}
	}
	return r, nil
}

// push copies the one image of a layout.
func (r *imageRegistry) push(ctx context.Context, image, dir string) error {
	ref, err := name.NewTag(r.host + "/" + image + ":" + tag)
	if err != nil {
		return err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return fmt.Errorf("%s has %d images, want 1", dir, len(manifest.Manifests))
	}
	var content v1.Image
	if content, err = index.Image(manifest.Manifests[0].Digest); err != nil {
		return err
	}
	return remote.Write(ref, content, remote.WithContext(ctx))
}

// Close ends the registry.
func (r *imageRegistry) Close() { _ = r.server.Close() }
