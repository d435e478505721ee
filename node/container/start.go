package container

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/weft-dev/weft/node/container/monitor"
)

// The files and folders of a container's directory, beside those of the monitor.
const (
	recordFile   = "container.json"
	configFile   = "config.json"
	rootFolder   = "rootfs"
	upperFolder  = "upper"
	workFolder   = "work"
	execPattern  = "exec-*"
	directoryRWX = 0o700
)

// startPatience bounds a start that an OCI runtime never finishes. It is a matter of milliseconds on a machine that is well.
const startPatience = 2 * time.Minute

// record is what stays on disk of a Spec.
type record struct {
	ID         string            `json:"id"`
	Labels     map[string]string `json:"labels,omitempty"`
	LogPath    string            `json:"logPath"`
	CgroupPath string            `json:"cgroupPath"`
}

// Start implements Runtime.
func (r *OCI) Start(ctx context.Context, spec Spec) (_ Status, err error) {
	if err := checkID(spec.ID); err != nil {
		return Status{}, err
	}
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	dir := r.dir(spec.ID)
	if err := os.Mkdir(dir, directoryRWX); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return Status{}, fmt.Errorf("starting container %q: it exists", spec.ID)
		}
		return Status{}, fmt.Errorf("making directory of container %q: %w", spec.ID, err)
	}
	defer func() {
		if err != nil {
			// Not with ctx, whose end may be the reason.
			if cleanup := r.discard(context.WithoutCancel(ctx), spec.ID); cleanup != nil {
				r.log.Error("Cleaning up after a failed start failed", "container", spec.ID, "error", cleanup)
			}
		}
	}()
	if err := r.prepare(dir, spec); err != nil {
		return Status{}, err
	}
	job := monitor.Job{
		Runtime: r.binary, Root: r.root(), ID: spec.ID, Dir: dir, TTY: spec.Process.TTY, Stdin: spec.Process.Stdin,
		Hide: r.cgroups.hide, Log: spec.LogPath, OOMEvents: r.cgroups.oomEvents(spec.Resources.CgroupPath),
	}
	c, err := r.monitors.begin(job)
	if err != nil {
		return Status{}, fmt.Errorf("starting container %q: %w", spec.ID, err)
	}
	defer func() { _ = c.Close() }()
	// A start under way is not stopped with ctx: only when it is over is it clear what there is to clean up.
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()
	reply, _, err := c.receive(patient)
	if err == nil && reply.Error != "" {
		return Status{}, startError(spec.Process.Args, reply.Error)
	}
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return Status{}, fmt.Errorf("starting container %q: %w", spec.ID, err)
	}
	return statusOf(reply.State, StateRunning), nil
}

// prepare writes everything that the OCI runtime and a later process of weft need into the container's directory.
func (r *OCI) prepare(dir string, spec Spec) error {
	if err := os.MkdirAll(filepath.Dir(spec.LogPath), 0o755); err != nil {
		return fmt.Errorf("making log directory: %w", err)
	}
	if spec.Resources.CgroupPath == "" {
		spec.Resources.CgroupPath = spec.ID
	}
	rec := record{ID: spec.ID, Labels: spec.Labels, LogPath: spec.LogPath, CgroupPath: spec.Resources.CgroupPath}
	if err := writeJSON(filepath.Join(dir, recordFile), rec); err != nil {
		return err
	}
	if err := mountRoot(dir, spec.Layers); err != nil {
		return err
	}
	root, err := openRoot(filepath.Join(dir, rootFolder))
	if err != nil {
		return err
	}
	defer root.close()
	oci, err := r.build(spec, root)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, configFile), oci)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}

func readRecord(dir string) (record, error) {
	var rec record
	err := readJSON(filepath.Join(dir, recordFile), &rec)
	return rec, err
}

// readProcess returns the container's process as the OCI runtime got it.
func readProcess(dir string) (*specs.Process, error) {
	var oci specs.Spec
	if err := readJSON(filepath.Join(dir, configFile), &oci); err != nil {
		return nil, err
	}
	if oci.Process == nil {
		return nil, fmt.Errorf("container configuration %q has no process", dir)
	}
	return oci.Process, nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decoding %q: %w", path, err)
	}
	return nil
}
