package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/weft-dev/weft/internal/instance"
)

func newKubeconfigCommand(g *global) *cobra.Command {
	var merge, use bool
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the kubeconfig, or merge it into your own",
		Long: `Print the kubeconfig of this platform's administrator, or merge it into your own.

--merge adds a cluster, a user and a context with the name of the platform to the file that kubectl uses ($KUBECONFIG or
~/.kube/config). The current context stays, unless there is none or --use is given.`,
		Example: `  weft kubeconfig > weft.kubeconfig
  weft kubeconfig --merge --use && kubectl get nodes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			i := instance.Instance{StateDir: g.dir()}
			if err := checkKubeconfig(i); err != nil {
				return err
			}
			config, err := clientcmd.LoadFromFile(i.Kubeconfig())
			if err != nil {
				return fmt.Errorf("reading kubeconfig: %w", err)
			}
			if merge || use {
				return mergeKubeconfig(cmd, config, use)
			}
			data, err := clientcmd.Write(*config)
			if err != nil {
				return fmt.Errorf("encoding kubeconfig: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
	cmd.Flags().BoolVar(&merge, "merge", false, "add the platform to $KUBECONFIG or ~/.kube/config")
	cmd.Flags().BoolVar(&use, "use", false, "also make it the current context; implies --merge")
	return cmd
}

func mergeKubeconfig(cmd *cobra.Command, config *api.Config, use bool) error {
	access := clientcmd.NewDefaultPathOptions()
	merged, err := access.GetStartingConfig()
	if err != nil {
		return fmt.Errorf("reading your kubeconfig: %w", err)
	}
	name := config.CurrentContext
	merged.Clusters[name], merged.AuthInfos[name], merged.Contexts[name] = config.Clusters[name], config.AuthInfos[name], config.Contexts[name]
	// An entry is written to the file that it was read from, unless it has forgotten.
	merged.Clusters[name].LocationOfOrigin, merged.AuthInfos[name].LocationOfOrigin, merged.Contexts[name].LocationOfOrigin = "", "", ""
	if use || merged.CurrentContext == "" {
		merged.CurrentContext = name
	}
	if err := clientcmd.ModifyConfig(access, *merged, true); err != nil {
		return fmt.Errorf("writing your kubeconfig: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "context %q is in %s; the current context is %q\n", name, access.GetDefaultFilename(), merged.CurrentContext)
	return err
}
