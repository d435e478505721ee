package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/cmd/weft/status"
)

// statusTimeout bounds the questions to the API and the proxy.
const statusTimeout = 5 * time.Second

func newStatusCommand(g *global) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, where, and how much memory it takes",
		Long: `Show what runs, where, and how much memory it takes.

The exit code is 1 when the platform does not run.`,
		Example: `  weft status

  # For scripts
  weft status -o json | jq .weft.pid`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output %q is not known: use json, or leave it out", output)
			}
			s, err := settings.Load(g.dir())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			report, err := status.Collect(ctx, s, version)
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				err = encoder.Encode(report)
			} else {
				err = printStatus(cmd.OutOrStdout(), report)
			}
			if err == nil && !report.Weft.Running {
				return silentError{errors.New("weft does not run")}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for people")
	return cmd
}

func printStatus(out io.Writer, r status.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		// Errors stay with the writer and come out of Flush.
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("weft", "%s", processLine(r.Weft))
	row("weft-proxy", "%s", processLine(r.Proxy))
	row("version", "%s, Kubernetes %s", r.Version, r.Kubernetes)
	row("gateway", "%s", r.Gateway)
	row("", "%s", r.GatewayHTTPS)
	row("kubernetes", "%s", r.API)
	row("metrics", "%s", r.Metrics)
	row("kubeconfig", "%s", r.Kubeconfig)
	row("state", "%s", r.StateDir)
	row("logs", "%s", r.Logs)
	if r.Objects != nil {
		row("services", "%d, %d ready", r.Objects.Services, r.Objects.ServicesReady)
		row("revisions", "%d", r.Objects.Revisions)
		row("pods", "%d, %d running", r.Objects.Pods, r.Objects.PodsRunning)
	}
	for _, problem := range r.Problems {
		row("problem", "%s", problem)
	}
	return w.Flush()
}

func processLine(p status.Process) string {
	if !p.Running {
		return "does not run"
	}
	return fmt.Sprintf("runs, pid %d, up %s, %d MB", p.PID, p.Uptime().Round(time.Second), p.MemoryBytes>>20)
}
