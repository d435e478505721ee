package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Delete implements Runtime.
func (r *OCI) Delete(ctx context.Context, id string) error {
	if _, err := r.existing(id); err != nil {
		return err
	}
	return r.discard(ctx, id)
}

// RemoveAll deletes every container of an instance with its processes, and the instance's cgroup. Nothing else may be using the
// instance's containers.
func RemoveAll(ctx context.Context, opts Options) error {
	r, err := NewRuntime(opts)
	if err != nil {
		return err
	}
	infos, err := r.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, info := range infos {
		errs = append(errs, r.Delete(ctx, info.ID))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	errs = append(errs, r.cgroups.removeParent())
	for _, dir := range []string{r.dir(""), r.root()} {
		if err := os.RemoveAll(dir); err != nil {
			errs = append(errs, fmt.Errorf("removing container directory: %w", err))
		}
	}
	return errors.Join(errs...)
}

// discard kills a container, waits for its end and removes it, whether all of it is there or not.
func (r *OCI) discard(ctx context.Context, id string) error {
	if err := r.Kill(ctx, id, int(unix.SIGKILL)); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, err := r.Wait(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return r.remove(ctx, id)
}

// remove deletes what a container without processes has. What is already gone is no error.
func (r *OCI) remove(ctx context.Context, id string) error {
	dir := r.dir(id)
	rec, recordErr := readRecord(dir)
	if _, err := os.Stat(filepath.Join(r.root(), id)); err == nil {
		if err := r.deleteState(ctx, id); err != nil {
			return err
		}
	}
	if recordErr == nil {
		if err := r.cgroups.remove(rec.CgroupPath); err != nil {
			return err
		}
	}
	if err := unmountRoot(dir); err != nil {
		return err
	}
	// The record goes last: a removal that is cut short can be repeated.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing directory of container %q: %w", id, err)
	}
	for _, e := range entries {
		if e.Name() == recordFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("removing directory of container %q: %w", id, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing directory of container %q: %w", id, err)
	}
	return nil
}

// deleteState lets the OCI runtime forget a container that does not run. A runtime that cannot, as when a power cut left its state
// half written, must not keep the container here for ever: then its files go and the cgroup is removed all the same.
func (r *OCI) deleteState(ctx context.Context, id string) error {
	out, err := exec.CommandContext(ctx, r.binary, "--root", r.root(), "delete", "--force", id).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	r.log.Info("OCI runtime did not delete a container, removing its state", "container", id, "error", err, "message", strings.TrimSpace(string(out)))
	if err := os.RemoveAll(filepath.Join(r.root(), id)); err != nil {
		return fmt.Errorf("removing state of container %q: %w", id, err)
	}
	return nil
}

// removeRemains deletes the directories of starts that ended with weft before they had a record, when nothing else was made.
func (r *OCI) removeRemains() error {
	entries, err := os.ReadDir(r.dir(""))
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(r.dir(e.Name()), recordFile)); errors.Is(err, os.ErrNotExist) {
			if err := os.RemoveAll(r.dir(e.Name())); err != nil {
				return fmt.Errorf("removing remains of container %q: %w", e.Name(), err)
			}
		}
	}
	return nil
}
