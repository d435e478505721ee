package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/build"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The places in a built image, which are ko's, so that a program made for ko finds its files.
const (
	appDir     = "ko-app"
	dataDir    = "var/run/ko"
	dataSource = "kodata"
	caFile     = "etc/ssl/certs/ca-certificates.crt"
	// nonroot is the user of a built image, by number so that runAsNonRoot can be checked without reading the image.
	nonroot = 65532
)

// hostCAFiles are where distributions keep their certificate authorities.
func hostCAFiles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	}
}

// ErrBuild is a program that the Go compiler refused; the error holds the compiler's output.
var ErrBuild = errors.New("go build")

// BuildOptions say what to build.
type BuildOptions struct {
	// Name of the image. A name without a registry gets dev.local/ in front, because what is built here is in no registry.
	Name string
	// Package is a Go main package: its directory, absolute or relative to the working directory, or its import path as the module of
	// the working directory knows it.
	Package string
	// Layout is a directory to write the image to, as an OCI layout, in place of the store. It must be new or empty. Empty is the store.
	// A layout needs all layers as archives, which those of a BaseImage no longer are.
	Layout string
	// BaseImage is the image to build on, pulled when absent. Empty is an image with nothing but users, certificates and /tmp.
	BaseImage string
	// Pull is used for BaseImage.
	Pull PullOptions
	// Flags are added to the arguments of go build, for example "-tags=netgo". The default flags strip paths and symbols.
	Flags []string
	// Env is added to the environment of the program in the image, in the form KEY=value.
	Env []string
}

// Build compiles a Go main package to a static binary and makes an image of it, as ko does and without any container engine: one
// layer with the binary as /ko-app/<name>, the directory kodata beside the source as /var/run/ko, certificates of the host, and user
// 65532. The same source gives the same image. The go command must be in PATH.
func (s *Store) Build(ctx context.Context, opts BuildOptions) (Image, error) {
	r, err := parseReference(BuildName(opts.Name))
	if err != nil {
		return Image{}, err
	}
	if r.digested() {
		return Image{}, fmt.Errorf("%w: %q: a build cannot be named by digest", ErrInvalidName, opts.Name)
	}
	keep, err := lockShared(s.path(gcLock))
	if err != nil {
		return Image{}, err
	}
	defer keep.unlock()
	tmp, err := os.MkdirTemp(s.path(tempDir), "build-*")
	if err != nil {
		return Image{}, fmt.Errorf("building %s: %w", r.name, err)
	}
	defer func() {
		if err := os.RemoveAll(tmp); err != nil {
			s.log.Error("removing temporary build", "path", tmp, "err", err)
		}
	}()
	b, err := s.build(ctx, tmp, opts)
	if err != nil {
		return Image{}, fmt.Errorf("building %s: %w", r.name, err)
	}
	if opts.Layout != "" {
		return writeLayout(ctx, opts.Layout, b, r.name)
	}
	return s.ingest(ctx, b, map[string]target{r.name: {}}, nil)
}

// BuildName returns the reference under which Build stores a name: one without a registry is local.
func BuildName(n string) string {
	first, _, ok := strings.Cut(n, "/")
	if n == "" || (ok && (strings.ContainsAny(first, ".:") || first == "localhost")) {
		return n
	}
	return localDev + "/" + n
}

// build compiles and describes the image. Its layer is a file in tmp.
func (s *Store) build(ctx context.Context, tmp string, opts BuildOptions) (bundle, error) {
	src, err := locate(ctx, opts.Package)
	if err != nil {
		return bundle{}, err
	}
	binary := filepath.Join(tmp, "binary")
	if err := s.compile(ctx, src, binary, opts.Flags); err != nil {
		return bundle{}, err
	}
	base, err := s.base(ctx, opts)
	if err != nil {
		return bundle{}, err
	}
	archive := filepath.Join(tmp, "layer.tar")
	diffHex, size, err := writeLayer(archive, layerContent{
		binary: binary, name: src.name, data: filepath.Join(src.dir, dataSource), bare: opts.BaseImage == "",
	})
	if err != nil {
		return bundle{}, err
	}
	base.layers = append(base.layers, layerSource{diffHex: diffHex, size: size, open: func(context.Context) (io.ReadCloser, error) {
		return os.Open(archive)
	}})
	return s.describe(base, src.name, opts.Env)
}

// source is the package to build.
type source struct {
	// dir has its files, and name is that of the program.
	dir, name string
	// target names the package for a go command that runs in module, whose go.mod decides the versions of what it imports.
	target, module string
}

// locate finds a package by its directory or import path.
func locate(ctx context.Context, pkg string) (source, error) {
	dir, err := filepath.Abs(pkg)
	if err != nil {
		return source{}, err
	}
	fi, err := os.Stat(dir)
	if err == nil && fi.IsDir() || build.IsLocalImport(pkg) || filepath.IsAbs(pkg) {
		return source{dir: dir, name: filepath.Base(dir), target: ".", module: dir}, nil
	}
	tool, err := goCommand()
	if err != nil {
		return source{}, err
	}
	var out, report bytes.Buffer
	cmd := exec.CommandContext(ctx, tool, "list", "-find", "-f", "{{.Dir}}", "--", pkg)
	cmd.Stdout, cmd.Stderr = &out, &report
	if err := cmd.Run(); err != nil {
		return source{}, fmt.Errorf("%w: %q is neither a directory nor a package of the module here: %w\n%s", ErrBuild, pkg, err, strings.TrimSpace(report.String()))
	}
	return source{dir: strings.TrimSpace(out.String()), name: path.Base(pkg), target: pkg}, nil
}

// compile runs the go command. The commit is not stamped in: it would change the image without a change of the program.
func (s *Store) compile(ctx context.Context, src source, binary string, flags []string) error {
	args := slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"}, flags, []string{"-o", binary, src.target})
	tool, err := goCommand()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = src.module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platformOS, "GOARCH="+s.opts.Architecture)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w in %s: %w\n%s", ErrBuild, src.dir, err, strings.TrimSpace(out.String()))
	}
	f, err := os.Open(binary)
	if err != nil {
		return fmt.Errorf("%w in %s: %w", ErrBuild, src.dir, err)
	}
	defer func() { _ = f.Close() }()
	// A library compiles to an archive without complaint.
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "\x7fELF" {
		return fmt.Errorf("%w in %s: not a main package", ErrBuild, src.dir)
	}
	return nil
}

// goCommand finds the go command. sudo takes it from PATH on most machines, so its usual places are tried too.
func goCommand() (string, error) {
	for _, p := range []string{"go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/snap/bin/go"} {
		if tool, err := exec.LookPath(p); err == nil {
			return tool, nil
		}
	}
	return "", fmt.Errorf("%w: the go command is not in PATH; install it from https://go.dev/dl", ErrBuild)
}

// buildBase is what an image is built on.
type buildBase struct {
	config   v1.ConfigFile
	manifest v1.Manifest
	layers   []layerSource
}

// base returns the image to build on, the empty one by default.
func (s *Store) base(ctx context.Context, opts BuildOptions) (buildBase, error) {
	b := buildBase{config: v1.ConfigFile{OS: platformOS, Architecture: s.opts.Architecture, RootFS: v1.RootFS{Type: "layers"}}}
	b.config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	b.config.Config.User = fmt.Sprint(nonroot)
	if opts.BaseImage == "" {
		b.config.Config.Env = append(b.config.Config.Env, "HOME=/home/nonroot")
		return b, nil
	}
	img, err := s.Resolve(ctx, opts.BaseImage)
	if errors.Is(err, ErrNotFound) {
		img, err = s.Pull(ctx, opts.BaseImage, opts.Pull)
	}
	if err != nil {
		return b, err
	}
	snap, err := s.snapshot()
	if err != nil {
		return b, err
	}
	rec := snap.Images[img.ID]
	if err := s.readJSON(strings.TrimPrefix(img.ID, "sha256:"), &b.config); err != nil {
		return b, err
	}
	if rec.Manifest != "" {
		if err := s.readJSON(rec.Manifest, &b.manifest); err != nil {
			return b, err
		}
	}
	for i, l := range rec.Layers {
		src := layerSource{diffHex: l}
		if i < len(b.manifest.Layers) {
			src.size = b.manifest.Layers[i].Size
		}
		b.layers = append(b.layers, src)
	}
	return b, nil
}

// readJSON reads a stored manifest or configuration.
func (s *Store) readJSON(hexDigest string, into any) error {
	data, err := os.ReadFile(s.blobPath(hexDigest))
	if err != nil {
		return fmt.Errorf("reading blob: %w", err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading blob %s: %w", hexDigest, err)
	}
	return nil
}

// epoch is the time of everything in a built image, so that equal sources give equal images.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

// describe makes configuration and manifest for the base with the new layer on top.
func (s *Store) describe(b buildBase, name string, env []string) (bundle, error) {
	c := b.config
	top := b.layers[len(b.layers)-1]
	c.Created = v1.Time{Time: epoch()}
	c.RootFS.DiffIDs = append(slices.Clone(c.RootFS.DiffIDs), v1.Hash{Algorithm: "sha256", Hex: top.diffHex})
	c.History = append(slices.Clone(c.History), v1.History{Created: v1.Time{Time: epoch()}, CreatedBy: "weft image build"})
	c.Config.Entrypoint, c.Config.Cmd = []string{"/" + appDir + "/" + name}, nil
	c.Config.Env = slices.Concat(withPath(c.Config.Env), []string{"KO_DATA_PATH=/" + dataDir}, env)
	out := bundle{layers: b.layers}
	var err error
	if out.config, err = json.Marshal(c); err != nil {
		return out, fmt.Errorf("writing configuration: %w", err)
	}
	sum := sha256.Sum256(out.config)
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{
			MediaType: types.OCIConfigJSON, Size: int64(len(out.config)),
			Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
		},
		Layers: append(slices.Clone(b.manifest.Layers), v1.Descriptor{
			MediaType: types.OCIUncompressedLayer, Size: top.size, Digest: v1.Hash{Algorithm: "sha256", Hex: top.diffHex},
		}),
	}
	if out.manifest, err = json.Marshal(m); err != nil {
		return out, fmt.Errorf("writing manifest: %w", err)
	}
	return out, nil
}

// withPath adds the program's directory to PATH.
func withPath(env []string) []string {
	out := slices.Clone(env)
	for i, e := range out {
		if strings.HasPrefix(e, "PATH=") {
			out[i] = e + ":/" + appDir
			return out
		}
	}
	return append(out, "PATH=/"+appDir)
}
