package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/weft-dev/weft/internal/instance"
)

// newKubectlCommand returns kubectl itself. All flags are kubectl's, so the state directory comes from the environment, or from
// --state-dir before the word kubectl.
func newKubectlCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl [ARGUMENTS]",
		Short: "Run kubectl against this platform",
		Long: `Run kubectl against this platform.

It is kubectl itself, with all commands, flags and plugins. It talks to this platform whatever $KUBECONFIG says, so that it never
changes another cluster by accident; --kubeconfig as an argument overrides that.`,
		Example: `  weft kubectl get ksvc,revisions,pods
  weft kubectl apply -f service.yaml
  weft --state-dir /tmp/other kubectl get nodes`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKubectl(cmd, instance.Instance{StateDir: g.dir()}, args)
		},
	}
}

func runKubectl(cmd *cobra.Command, i instance.Instance, args []string) error {
	// kubectl looks after its own signals: port-forward and logs -f end by them, and would not if weft caught them first.
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	if !namesCluster(args) {
		if err := checkKubeconfig(i); err != nil {
			return err
		}
		// The environment and not a default of a flag: kubectl's plugins must see it too.
		if err := os.Setenv("KUBECONFIG", i.Kubeconfig()); err != nil {
			return fmt.Errorf("setting KUBECONFIG: %w", err)
		}
	}
	streams := genericiooptions.IOStreams{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), ErrOut: cmd.ErrOrStderr()}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50).
		WithWarningPrinter(streams)
	command := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		PluginHandler: kubectl.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     append([]string{"kubectl"}, args...),
		ConfigFlags:   flags,
		IOStreams:     streams,
	})
	command.SetArgs(args)
	command.SilenceErrors, command.SilenceUsage = true, true
	if err := command.ExecuteContext(cmd.Context()); err != nil {
		// Prints the error as kubectl does and ends the process with the exit code that scripts expect of kubectl.
		kubectlutil.CheckErr(err)
	}
	return nil
}

// namesCluster reports whether the arguments say themselves where the API server is, or need none.
func namesCluster(args []string) bool {
	if len(args) == 0 || strings.HasPrefix(args[0], "__complete") {
		return true
	}
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		name, _, _ := strings.Cut(arg, "=")
		switch name {
		case "--kubeconfig", "--client", "-h", "--help":
			return true
		}
	}
	return slices.Contains([]string{"help", "completion", "options", "kustomize", "plugin"}, args[0])
}

// checkKubeconfig turns what kubectl would misunderstand as a wish for localhost:8080 into the reason.
func checkKubeconfig(i instance.Instance) error {
	f, err := os.Open(i.Kubeconfig())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no platform in %s: start one with `weft up`, or name another with --state-dir", i.StateDir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may only be read by the user who ran `weft up`: use sudo, or `sudo weft kubeconfig` to hand it out", i.Kubeconfig())
	case err != nil:
		return fmt.Errorf("opening kubeconfig: %w", err)
	}
	return f.Close()
}
