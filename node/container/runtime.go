package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/weft-dev/weft/internal/instance"
)

var _ Runtime = (*OCI)(nil)

// Options configure NewRuntime.
type Options struct {
	// Instance names the state directory and the cgroup of the containers.
	Instance instance.Instance
	// RuntimePath is the OCI runtime. Empty means the first of crun and runc in PATH, and weft-runc beside the executable.
	RuntimePath string
	// ShimPath is the monitor. Empty means weft-shim beside the executable, or in PATH.
	ShimPath string
	// Log defaults to discarding.
	Log *slog.Logger
}

// OCI is the Runtime that drives an OCI runtime binary through one monitor process per container.
type OCI struct {
	instance instance.Instance
	binary   string
	log      *slog.Logger
	monitors *monitors
	cgroups  cgroups
	// minOOMScore is the lowest score that this process may give to another, noOOMScoreLimit with CAP_SYS_RESOURCE.
	minOOMScore int
}

// NewRuntime finds the binaries and makes the directories. Containers of an earlier process show up in List.
func NewRuntime(opts Options) (*OCI, error) {
	if err := opts.Instance.Validate(); err != nil {
		return nil, err
	}
	r := &OCI{instance: opts.Instance, binary: opts.RuntimePath, log: opts.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if r.binary == "" {
		if r.binary, err = find([]string{"crun", "runc"}, []string{"weft-runc"}); err != nil {
			return nil, fmt.Errorf("finding an OCI runtime: %w", err)
		}
	}
	shim := opts.ShimPath
	if shim == "" {
		if shim, err = findShim(); err != nil {
			return nil, fmt.Errorf("finding the container monitor: %w", err)
		}
	}
	if r.cgroups, err = detectCgroups(opts.Instance); err != nil {
		return nil, err
	}
	if r.minOOMScore, err = minOOMScore(); err != nil {
		return nil, err
	}
	r.monitors = &monitors{path: shim, log: r.log, protect: r.minOOMScore == noOOMScoreLimit}
	for _, dir := range []string{r.dir(""), r.root()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making container directory: %w", err)
		}
	}
	return r, r.removeRemains()
}

// Run prepares the machine for quick starts and keeps a few idle monitors ready until ctx ends, which takes their start off the way
// of a container. Start works without Run, only slower. Containers and their monitors stay.
func (r *OCI) Run(ctx context.Context) error {
	if err := r.cgroups.favorChanges(); err != nil {
		r.log.Info("Containers will start some milliseconds later than they could", "error", err)
	}
	return r.monitors.run(ctx)
}

// dir is the directory of a container: its bundle, root file system, status and console.
func (r *OCI) dir(id string) string { return r.instance.Path("containers", id) }

// root is the directory in which the OCI runtime keeps its own state.
func (r *OCI) root() string { return r.instance.Path("run", "oci") }

// existing returns the directory of a container that exists.
func (r *OCI) existing(id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	dir := r.dir(id)
	if _, err := os.Stat(filepath.Join(dir, recordFile)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("container %q: %w", id, ErrNotFound)
		}
		return "", fmt.Errorf("finding container %q: %w", id, err)
	}
	return dir, nil
}

// checkID keeps an id inside of the directory and off the OCI runtime's flags.
func checkID(id string) error {
	if id == "" || strings.ContainsAny(id, "/\x00") || id[0] == '.' || id[0] == '-' || len(id) > 255 {
		return fmt.Errorf("container id %q must be a file name that begins with neither dot nor dash: %w", id, ErrNotFound)
	}
	return nil
}

// findShim prefers the monitor that was installed with this executable, so that both are of one version.
func findShim() (string, error) {
	const name = "weft-shim"
	path, err := find(nil, []string{name})
	if err != nil {
		return find([]string{name}, nil)
	}
	return path, nil
}

// find returns the first executable among names in PATH, then among those beside the running executable.
func find(inPath, beside []string) (string, error) {
	var errs []error
	for _, name := range inPath {
		path, err := exec.LookPath(name)
		if err == nil {
			return filepath.Abs(path)
		}
		errs = append(errs, err)
	}
	self, err := os.Executable()
	if err != nil {
		return "", errors.Join(append(errs, err)...)
	}
	for _, name := range beside {
		path, err := exec.LookPath(filepath.Join(filepath.Dir(self), name))
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}
