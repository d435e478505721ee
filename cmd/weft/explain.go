package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/weft-dev/weft/cmd/weft/explain"
	"github.com/weft-dev/weft/internal/instance"
)

// explainTimeout bounds all questions to the API together.
const explainTimeout = 20 * time.Second

// explainFlags are those of weft explain.
type explainFlags struct {
	namespace, kubeconfig, context, output string
	all                                    bool
}

func newExplainCommand(g *global) *cobra.Command {
	f := &explainFlags{}
	cmd := &cobra.Command{
		Use:   "explain TYPE/NAME",
		Short: "Say why a service is not ready, or has the instances that it has",
		Long: `Say why a service is not ready, or has the instances that it has.

It follows the chain Service, Configuration, Revision, Deployment, Pod, PodAutoscaler, Route, and shows the first broken link on top:
its cause, since when, and what to do next. When all is well it says where the service is, why it has so many instances, and which
revisions are kept and why.

TYPE is service (ksvc), configuration, revision, route, domainmapping or pod. Any cluster with Knative's API can be asked:
--kubeconfig and --context choose one in place of this machine's platform.`,
		Example: `  weft explain ksvc/hello
  weft explain revision hello-00002 -n shop
  weft explain ksvc/hello -o json | jq -r .summary

  # Another cluster
  weft explain ksvc/hello --kubeconfig ~/.kube/config --context work`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return runExplain(cmd, g, f, args) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace (default: that of the kubeconfig's context)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of another cluster")
	flags.StringVar(&f.context, "context", "", "context of the kubeconfig; alone, of $KUBECONFIG or ~/.kube/config")
	flags.StringVarP(&f.output, "output", "o", "", "json, or nothing for people")
	flags.BoolVarP(&f.all, "all", "a", false, "show every link also when all is well")
	return cmd
}

func runExplain(cmd *cobra.Command, g *global, f *explainFlags, args []string) error {
	if f.output != "" && f.output != "json" {
		return fmt.Errorf("--output %q is not known: use json, or leave it out", f.output)
	}
	// Before the cluster is asked, so that a mistake in the arguments is told first.
	if _, err := explain.ParseTarget(args, ""); err != nil {
		return err
	}
	access, namespace, kubectl, debug, err := f.access(g)
	if err != nil {
		return err
	}
	target, err := explain.ParseTarget(args, namespace)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), explainTimeout)
	defer cancel()
	cluster, err := explain.Connect(access, debug)
	if err != nil {
		return err
	}
	objects, err := explain.Read(ctx, cluster, target, kubectl)
	switch {
	case errors.Is(err, context.DeadlineExceeded), utilnet.IsConnectionRefused(err):
		return fmt.Errorf("the API at %s does not answer; does the control plane run? (weft status)", access.Host)
	case err != nil:
		return err
	}
	now := time.Now()
	report := explain.Explain(objects, now)
	if f.output == "json" {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return report.Print(cmd.OutOrStdout(), now, f.all)
}

// access says which cluster is asked, in which namespace, how the user calls kubectl for it, and the debug socket of the platform
// if it is this machine's.
func (f *explainFlags) access(g *global) (config *rest.Config, namespace, kubectl, debug string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	kubectl = "kubectl"
	switch {
	case f.kubeconfig != "":
		rules = &clientcmd.ClientConfigLoadingRules{ExplicitPath: f.kubeconfig}
		kubectl += " --kubeconfig " + f.kubeconfig
	case f.context == "":
		i := instance.Instance{StateDir: g.dir()}
		if err := checkKubeconfig(i); err != nil {
			return nil, "", "", "", err
		}
		rules = &clientcmd.ClientConfigLoadingRules{ExplicitPath: i.Kubeconfig()}
		kubectl, debug = "weft kubectl", i.Path("run", "debug.sock")
	}
	if f.context != "" {
		kubectl += " --context " + f.context
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context})
	if config, err = loader.ClientConfig(); err != nil {
		return nil, "", "", "", fmt.Errorf("reading kubeconfig: %w", err)
	}
	config.QPS = -1
	if namespace = f.namespace; namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", "", "", fmt.Errorf("reading kubeconfig: %w", err)
		}
	}
	return config, namespace, kubectl, debug, nil
}
