package teardown

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-dev/weft/node/container"
)

// containerGrace is how long containers may take to end after SIGTERM when the whole platform stops. It is shorter than a pod's
// grace period, because somebody waits at a terminal.
const containerGrace = 10 * time.Second

// StopContainers ends all containers of an instance, politely and all at once, and removes their file systems. Their logs stay.
func StopContainers(ctx context.Context, runtime container.Runtime) error {
	all, err := runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	var group errgroup.Group
	for _, c := range all {
		group.Go(func() error { return stopContainer(ctx, runtime, c) })
	}
	return group.Wait()
}

func stopContainer(ctx context.Context, runtime container.Runtime, c container.Info) error {
	if c.Status.State == container.StateRunning {
		if err := runtime.Kill(ctx, c.ID, int(syscall.SIGTERM)); err != nil && !errors.Is(err, container.ErrNotFound) {
			return fmt.Errorf("stopping container %s: %w", c.ID, err)
		}
		patient, cancel := context.WithTimeout(ctx, containerGrace)
		defer cancel()
		if _, err := runtime.Wait(patient, c.ID); err != nil && patient.Err() == nil && !errors.Is(err, container.ErrNotFound) {
			return fmt.Errorf("waiting for container %s: %w", c.ID, err)
		}
	}
	// Kills what has not ended.
	if err := runtime.Delete(ctx, c.ID); err != nil && !errors.Is(err, container.ErrNotFound) {
		return fmt.Errorf("removing container %s: %w", c.ID, err)
	}
	return nil
}
