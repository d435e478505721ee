package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/cmd/weft/teardown"
	"github.com/weft-dev/weft/cmd/weft/trust"
	"github.com/weft-dev/weft/embedded/supervise"
)

func newDownCommand(g *global) *cobra.Command {
	var purge bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the platform on this machine",
		Long: `Stop the platform on this machine: weft, weft-proxy and all containers.

The state stays, and the next weft up runs the same services again. --purge removes everything: objects, images, logs, networks.`,
		Example: `  sudo weft down

  # Leave nothing behind
  sudo weft down --purge`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(g.dir())
			if errors.Is(err, settings.ErrNone) && purge {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "nothing to remove: no platform in %s\n", g.dir())
				return err
			}
			if err != nil {
				return err
			}
			return down(cmd, s, purge, timeout)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "also remove all state, images, networks and what else the platform made")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long weft may take to stop in order until it is killed")
	return cmd
}

func down(cmd *cobra.Command, s settings.Settings, purge bool, timeout time.Duration) error {
	ctx := cmd.Context()
	pid, err := s.Owner()
	if err != nil {
		return err
	}
	if pid != 0 {
		if err := stopWeft(ctx, pid, timeout); err != nil {
			return err
		}
	}
	// Bridge, firewall table and cgroup carry the name. When another platform has taken it since this one was killed, they are its own.
	lock, err := s.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("stop the other platform first, with its --state-dir: %w", err)
	}
	defer func() { _ = lock.Release() }()
	// What is left when weft was killed, or could not stop something.
	if err := teardown.Stop(ctx, s.Instance); err != nil {
		return err
	}
	if purge {
		if _, err := (trust.Store{}).Remove(ctx, s.Name); err != nil {
			return err
		}
		if err := teardown.Purge(ctx, s.Instance); err != nil {
			return err
		}
	}
	switch {
	case purge:
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "weft has stopped, and %s is removed\n", s.StateDir)
	case pid == 0:
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "weft does not run")
	default:
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "weft has stopped")
	}
	return err
}

// stopWeft ends `weft up` in order, or kills it after timeout.
func stopWeft(ctx context.Context, pid int, timeout time.Duration) error {
	err := supervise.Terminate(ctx, pid, timeout)
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("weft (pid %d) belongs to another user: use sudo", pid)
	}
	return err
}
