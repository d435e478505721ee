// Package controllers runs chosen controllers of kube-controller-manager in this process. Package embedded starts it when the API
// server is ready. It is one of the few packages that may import k8s.io/kubernetes.
package controllers

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"github.com/weft-dev/weft/embedded/pki"
)

// Options of the controllers.
type Options struct {
	// Kubeconfig is the path of a kubeconfig for the user system:kube-controller-manager.
	Kubeconfig string
	Files      pki.Files
}

// enabled lists what runs. What is missing needs a cloud, volumes that the node agent does not offer, or several nodes:
// with one node that is down nothing can be moved, so node-lifecycle-controller would only evict what will be back in a second.
func enabled() []string {
	return []string{
		names.DeploymentController,
		names.ReplicaSetController,
		names.StatefulSetController,
		names.DaemonSetController,
		names.JobController,
		names.CronJobController,
		names.TTLAfterFinishedController,
		names.PodGarbageCollectorController,
		names.DisruptionController,
		names.HorizontalPodAutoscalerController,
		names.EndpointSliceController,
		names.EndpointSliceMirroringController,
		names.GarbageCollectorController,
		names.NamespaceController,
		names.ResourceQuotaController,
		names.ServiceAccountController,
		names.ServiceAccountTokenController,
		names.RootCACertificatePublisherController,
		names.ClusterRoleAggregationController,
	}
}

// Run runs the controllers until ctx ends and they have finished.
func Run(ctx context.Context, opts Options) error {
	o, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("making options of kube-controller-manager: %w", err)
	}
	known, disabled, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	sets := o.Flags(known, disabled, aliases)
	flags := pflag.NewFlagSet("kube-controller-manager", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(arguments(opts)); err != nil {
		return fmt.Errorf("parsing flags of kube-controller-manager: %w", err)
	}
	config, err := o.Config(ctx, known, disabled, aliases)
	if err != nil {
		return fmt.Errorf("configuring kube-controller-manager: %w", err)
	}
	// The library registers its configuration in a global map and refuses a second start in the same process.
	defer configz.Delete(app.ConfigzName)
	if err := app.Run(ctx, config.Complete()); err != nil {
		return fmt.Errorf("running kube-controller-manager: %w", err)
	}
	return nil
}

func arguments(opts Options) []string {
	return []string{
		"--controllers=" + strings.Join(enabled(), ","),
		"--kubeconfig=" + opts.Kubeconfig,
		"--leader-elect=false",
		// No listener: health is the process's, and two instances on a machine would fight for the port.
		"--secure-port=0",
		"--profiling=false",
		"--root-ca-file=" + opts.Files.CA.Cert,
		"--service-account-private-key-file=" + opts.Files.ServiceAccountKey,
		// The limits protect a shared API server. Here the only clients are in the process, and a burst after a cold start counts.
		"--kube-api-qps=-1",
		"--kube-api-burst=1000",
		// Ready pods must show up at once, not in batches.
		"--endpointslice-updates-batch-period=0",
		"--concurrent-gc-syncs=4",
		// Measuring one machine costs microseconds, so that load is looked at more often than every 15 s, the default for clusters.
		"--horizontal-pod-autoscaler-sync-period=5s",
	}
}
