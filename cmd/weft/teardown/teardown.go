// Package teardown stops and removes what a platform leaves on the machine when its weft does not run: containers, the proxy, and for
// a purge networks, mounts, cgroups and the state. Command weft down calls it, and package server for the containers when weft
// up stops. It imports no Kubernetes.
package teardown

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-dev/weft/embedded/supervise"
	"github.com/weft-dev/weft/internal/instance"
	"github.com/weft-dev/weft/mesh/capture"
	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/sandbox"
)

// ProxyStopTimeout is how long the proxy may take to finish its requests and end.
const ProxyStopTimeout = 15 * time.Second

// ProxyPIDFile is where the running proxy is written down.
func ProxyPIDFile(i instance.Instance) string { return i.Path("run", "weft-proxy.pid") }

// Stop stops the proxy, with what leads traffic to it, and the containers of an instance whose weft does not run. What does not run is no error.
func Stop(ctx context.Context, i instance.Instance) error {
	if err := supervise.Stop(ctx, ProxyPIDFile(i), ProxyStopTimeout); err != nil {
		return fmt.Errorf("stopping weft-proxy: %w", err)
	}
	// Without the proxy the rules lead the traffic of the machine nowhere.
	if err := capture.Remove(i); err != nil {
		return err
	}
	runtime, err := container.NewRuntime(container.Options{Instance: i})
	if err != nil {
		return err
	}
	return StopContainers(ctx, runtime)
}

// Purge removes all that an instance made. Stop must have been called.
func Purge(ctx context.Context, i instance.Instance) error {
	var errs []error
	if err := sandbox.RemoveAll(ctx, i); err != nil {
		errs = append(errs, fmt.Errorf("removing networks: %w", err))
	}
	errs = append(errs, unmountBelow(i.StateDir), removeCgroups(i.CgroupParent()))
	if err := errors.Join(errs...); err != nil {
		// With something mounted below it, removing the directory could remove what is not ours.
		return err
	}
	return removeState(i.StateDir)
}
