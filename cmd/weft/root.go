package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weft-dev/weft/internal/instance"
)

// stateDirEnv selects the platform when --state-dir is not given.
const stateDirEnv = "WEFT_STATE_DIR"

const versionTemplate = "weft {{.Version}}\n"

// global holds the flags of all commands.
type global struct {
	stateDir string
}

// dir is the absolute path of the state directory.
func (g *global) dir() string {
	dir := g.stateDir
	if dir == "" {
		dir = os.Getenv(stateDirEnv)
	}
	if dir == "" {
		return instance.DefaultStateDir
	}
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// helpOrUnknown runs when no subcommand was found.
func helpOrUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := ""
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = fmt.Sprintf(", did you mean %q?", similar[0])
	}
	return fmt.Errorf("unknown command %q%s; see %s --help", args[0], hint, cmd.CommandPath())
}

func newRootCommand() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "weft",
		Short: "A serverless platform with its own service mesh",
		Long: `Weft runs Knative Services: they start when a request comes and stop when no more come.

weft up starts the platform on this machine. It serves the Kubernetes and Knative APIs, so kubectl, kn and existing manifests
work unchanged; weft kubectl is kubectl itself.`,
		Example: `  # Start the platform in the background, build an image, deploy it
  sudo weft up --detach
  weft image build hello ./hello
  weft kubectl apply -f service.yaml`,
		Args:         cobra.ArbitraryArgs, // helpOrUnknown gives the better message.
		RunE:         helpOrUnknown,
		SilenceUsage: true,
		// How many letters may be wrong for a suggestion.
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		Version:                    version,
		TraverseChildren:           true, // So that flags before "kubectl" are ours and those after it kubectl's.
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate(versionTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.PersistentFlags().StringVar(&g.stateDir, "state-dir", "",
		"directory of the platform's state (default $"+stateDirEnv+" or "+instance.DefaultStateDir+")")
	// A library defines a flag of this name for all commands of the process, which is not what it should do here.
	root.PersistentFlags().Bool("version", false, "print the version of weft")
	root.AddCommand(
		newUpCommand(g), newDownCommand(g), newStatusCommand(g), newExplainCommand(g),
		newKubectlCommand(g), newKubeconfigCommand(g), newTrustCommand(g), newImageCommand(g.dir), newVersionCommand(),
	)
	for _, cmd := range root.Commands() {
		cmd.Version = version
		cmd.SetVersionTemplate(versionTemplate)
	}
	return root
}
