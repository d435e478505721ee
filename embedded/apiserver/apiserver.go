// Package apiserver runs kube-apiserver in this process. Package embedded starts it between etcd and the controllers.
// It is one of the few packages that may import k8s.io/kubernetes.
package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"github.com/weft-dev/weft/embedded/metrics"
	"github.com/weft-dev/weft/embedded/pki"
)

// issuer is the name of the service account tokens' issuer, the one that clients in a cluster expect.
const issuer = "https://kubernetes.default.svc.cluster.local"

// Options of an API server.
type Options struct {
	// Etcd is the endpoint of etcd.
	Etcd string
	// Port on 127.0.0.1.
	Port int
	// Advertise is the address that pods dial; something must relay its Port to 127.0.0.1.
	Advertise netip.Addr
	// ServiceCIDR is the network of cluster IPs.
	ServiceCIDR netip.Prefix
	Files       pki.Files
	// Metrics is where metrics.k8s.io has its figures from; nil serves no such group.
	Metrics func() metrics.Source
}

// Run serves the API until ctx ends, then finishes the requests in flight.
//
// It goes through kube-apiserver's options and its Run, not through its command: the command takes the process's signals.
func Run(ctx context.Context, opts Options) error {
	o := options.NewServerRunOptions()
	sets := o.Flags()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(arguments(opts)); err != nil {
		return fmt.Errorf("parsing flags of kube-apiserver: %w", err)
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("setting feature gates of kube-apiserver: %w", err)
	}
	completed, err := o.Complete(ctx)
	if err != nil {
		return fmt.Errorf("completing options of kube-apiserver: %w", err)
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return fmt.Errorf("validating options of kube-apiserver: %w", utilerrors.NewAggregate(errs))
	}
	return serve(ctx, completed, opts.Metrics)
}

// serve does what kube-apiserver's own Run does, with one API group more.
func serve(ctx context.Context, opts options.CompletedOptions, source func() metrics.Source) error {
	config, err := app.NewConfig(opts)
	if err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	complete, err := config.Complete()
	if err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	server, err := app.CreateServerChain(complete)
	if err != nil {
		return fmt.Errorf("making kube-apiserver: %w", err)
	}
	if source != nil {
		// The first server of the chain: all requests pass it, with their users known and allowed.
		if err := server.GenericAPIServer.InstallAPIGroup(metrics.Group(source)); err != nil {
			return fmt.Errorf("installing metrics.k8s.io: %w", err)
		}
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return fmt.Errorf("preparing kube-apiserver: %w", err)
	}
	if err := prepared.Run(ctx); err != nil {
		return fmt.Errorf("running kube-apiserver: %w", err)
	}
	return nil
}

func arguments(opts Options) []string {
	f := opts.Files
	return []string{
		"--etcd-servers=" + opts.Etcd,
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(opts.Port),
		"--advertise-address=" + opts.Advertise.String(),
		"--service-cluster-ip-range=" + opts.ServiceCIDR.Masked().String(),
		"--tls-cert-file=" + f.APIServer.Cert,
		"--tls-private-key-file=" + f.APIServer.Key,
		"--client-ca-file=" + f.CA.Cert,
		"--anonymous-auth=false",
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + f.ServiceAccountKey,
		"--service-account-signing-key-file=" + f.ServiceAccountKey,
		"--kubelet-client-certificate=" + f.KubeletClient.Cert,
		"--kubelet-client-key=" + f.KubeletClient.Key,
		"--kubelet-certificate-authority=" + f.CA.Cert,
		"--kubelet-preferred-address-types=InternalIP",
		"--proxy-client-cert-file=" + f.FrontProxyClient.Cert,
		"--proxy-client-key-file=" + f.FrontProxyClient.Key,
		"--requestheader-client-ca-file=" + f.FrontProxyCA.Cert,
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--allow-privileged=true",
		"--profiling=false",
		// TaintNodesByCondition taints a new Node until node-lifecycle-controller, which does not run for a lone node, clears it.
		// StorageObjectInUseProtection adds finalizers that only the volume controllers remove.
		"--disable-admission-plugins=TaintNodesByCondition,StorageObjectInUseProtection",
		// Fairness protects tenants from each other by queueing; here it only delays and costs memory.
		"--enable-priority-and-fairness=false",
		// Counting objects and measuring the database is for dashboards of big clusters.
		"--etcd-count-metric-poll-period=0",
		"--etcd-db-metric-poll-interval=0",
	}
}
