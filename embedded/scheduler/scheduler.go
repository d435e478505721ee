// Package scheduler runs kube-scheduler in this process. Package embedded starts it when the API server is ready.
// It is one of the few packages that may import k8s.io/kubernetes.
package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// configzName is the key under which the scheduler publishes its configuration in a global map.
const configzName = "componentconfig"

// Run schedules pods until ctx ends. Kubeconfig is the path of a kubeconfig for the user system:kube-scheduler.
//
// It does not go through the scheduler's command, which takes the process's signals.
func Run(ctx context.Context, kubeconfig string) error {
	o := options.NewOptions()
	flags := pflag.NewFlagSet("kube-scheduler", pflag.ContinueOnError)
	for _, set := range o.Flags.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse([]string{
		"--kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--profiling=false",
		"--kube-api-qps=-1",
		"--kube-api-burst=1000",
	}); err != nil {
		return fmt.Errorf("parsing flags of kube-scheduler: %w", err)
	}
	config, sched, err := app.Setup(ctx, o)
	if err != nil {
		return fmt.Errorf("setting up kube-scheduler: %w", err)
	}
	// The library refuses a second start in the same process while the first one's configuration is registered.
	defer configz.Delete(configzName)
	// Without leader election Run always returns an error; after the end of ctx it only says that it has finished.
	if err := app.Run(ctx, config, sched); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("running kube-scheduler: %w", err)
	}
	return nil
}
