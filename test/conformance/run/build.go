package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// module is the module whose suites are run.
const module = "knative.dev/serving"

// built is what is made of the module.
type built struct {
	// module is the directory of its sources, version its version.
	module, version string
	// images are directories of OCI layouts, by the name of the image.
	images map[string]string
	// tests are test binaries, by the import path of their package below the module.
	tests map[string]string
}

// build makes the images and the test binaries, or takes them from the cache when they were made of the same versions.
func build(ctx context.Context, o options, suites []suite) (built, error) {
	listed, err := goCommand(ctx, "list", "-m", "-f", "{{.Dir}} {{.Version}}", module)
	if err != nil {
		return built{}, err
	}
	dir, version, _ := strings.Cut(listed, " ")
	b := built{module: dir, version: version, images: map[string]string{}, tests: map[string]string{}}
	if err := o.openCache(); err != nil {
		return built{}, err
	}
	packages, err := goCommand(ctx, "list", "-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`, module+"/test/test_images/...")
	if err != nil {
		return built{}, err
	}
	for p := range strings.FieldsSeq(packages) {
		name := path.Base(p)
		b.images[name] = filepath.Join(o.cache, "images", name)
		if err := o.buildImage(ctx, name, p, b.images[name]); err != nil {
			return built{}, err
		}
	}
	for _, s := range suites {
		b.tests[s.path] = filepath.Join(o.cache, strings.ReplaceAll(s.path, "/", "-")+".test")
		if err := buildTest(ctx, s.path, b.tests[s.path]); err != nil {
			return built{}, err
		}
	}
	return b, nil
}

// openCache empties the cache when the versions of the modules are others than before.
func (o options) openCache() error {
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		return fmt.Errorf("reading versions; run this in test/conformance: %w", err)
	}
	stamp := filepath.Join(o.cache, "go.sum")
	if known, err := os.ReadFile(stamp); err == nil && bytes.Equal(known, sum) {
		return nil
	}
	if err := os.RemoveAll(o.cache); err != nil {
		return fmt.Errorf("emptying cache: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(o.cache, "images"), 0o755); err != nil {
		return fmt.Errorf("making cache: %w", err)
	}
	return os.WriteFile(stamp, sum, 0o600)
}

// buildImage lets weft build an image. It appears under its name when it is complete.
func (o options) buildImage(ctx context.Context, name, pkg, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	progress("building image " + name)
	partial, store := to+".partial", filepath.Join(o.cache, "store")
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "weft"), "--state-dir", store, "image", "build", name+":v1", pkg, "--output", partial)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building image %s: %w\n%s", name, err, out)
	}
	return os.Rename(partial, to)
}

func buildTest(ctx context.Context, pkg, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	progress("building tests of " + pkg)
	if _, err := goCommand(ctx, "test", "-c", "-vet=off", "-tags=e2e", "-ldflags=-s -w", "-o", to+".partial", module+"/"+pkg); err != nil {
		return err
	}
	return os.Rename(to+".partial", to)
}

// goCommand runs the go command in the working directory, whose go.mod pins the versions, and returns what it prints.
func goCommand(ctx context.Context, args ...string) (string, error) {
	var out, report bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stdout, cmd.Stderr = &out, &report
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, report.String())
	}
	return strings.TrimSpace(out.String()), nil
}
