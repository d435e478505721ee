package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	kubeversion "k8s.io/component-base/version"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of weft and of what it contains",
		Example: "  weft version",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "weft        %s\nkubernetes  %s\ngo          %s\n",
				version, kubeversion.Get().GitVersion, runtime.Version())
			return err
		},
	}
}
