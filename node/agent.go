package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/object"
	"github.com/weft-dev/weft/node/pod"
	"github.com/weft-dev/weft/node/server"
	"github.com/weft-dev/weft/node/stats"
)

// SandboxPool has the namespaces and addresses of pods. Its methods may be called concurrently.
type SandboxPool interface {
	pod.Sandboxes
	// Adopt keeps the sandboxes of ids and destroys all others that an earlier process left. It is called once, before any
	// Acquire.
	Adopt(ctx context.Context, ids []string) error
}

// Agent runs the pods of this machine.
type Agent struct {
	o       Options
	log     *slog.Logger
	client  kubernetes.Interface
	objects *object.Store
	events  *events
	shared  pod.Options
	server  *server.Server
	stats   *stats.Stats
	node    *registrar

	// mu guards everything below.
	mu      sync.Mutex
	workers map[types.UID]*worker
	names   map[types.NamespacedName]types.UID
	running sync.WaitGroup
}

var _ server.Pods = (*Agent)(nil)

// New returns an agent. It does nothing before Run.
func New(o Options) (*Agent, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Agent{
		o: o, log: o.Log, client: o.Client, workers: map[types.UID]*worker{}, names: map[types.NamespacedName]types.UID{},
		objects: object.New(object.Options{Client: o.Client, Log: o.Log}),
		events:  newEvents(o.Client, o.NodeName),
	}
	machine, err := readMachine()
	if err != nil {
		return nil, err
	}
	a.shared = pod.Options{
		Client: o.Client, Images: o.Images, Sandboxes: o.Sandboxes, Runtime: o.Runtime, Objects: a.objects,
		Tokens: o.Tokens, Events: a.events.recorder, Root: o.Instance.Path("pods"), LogRoot: o.Instance.Path("logs", "pods"),
		HostIP: o.Address, CPUs: runtime.NumCPU(), MemoryBytes: machine.memory,
		BackoffBase: o.BackoffBase, BackoffMax: o.BackoffMax, Log: o.Log,
	}
	a.node = newRegistrar(o, machine)
	if a.stats, err = a.newStats(); err != nil {
		return nil, err
	}
	if o.ServerTLS != nil {
		a.server, err = server.New(server.Options{
			Pods: a, Runtime: o.Runtime, Stats: a.stats, TLS: o.ServerTLS, Clients: o.ServerClients, Address: o.Address, Port: o.Port, Log: o.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("making the kubelet API: %w", err)
		}
	}
	return a, nil
}

// Run works until ctx ends or a part fails. Containers keep running then; the next Run adopts them.
func (a *Agent) Run(ctx context.Context) error {
	for _, dir := range []string{a.shared.Root, a.shared.LogRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making a directory of the agent: %w", err)
		}
	}
	left, err := a.o.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("listing the containers of an earlier process: %w", err)
	}
	a.events.start()
	defer a.events.stop()
	group, ctx := errgroup.WithContext(ctx)
	defer a.running.Wait()
	group.Go(func() error { return a.objects.Run(ctx) })
	group.Go(func() error { return a.node.run(ctx) })
	group.Go(func() error { a.watch(ctx, byPod(left)); return nil })
	if a.server != nil {
		group.Go(func() error { return a.server.Run(ctx) })
	}
	return group.Wait() //nolint:wrapcheck // each part says what it did
}

// byPod groups containers by the pod that they belong to.
func byPod(list []container.Info) map[types.UID][]container.Info {
	out := map[types.UID][]container.Info{}
	for _, info := range list {
		uid := types.UID(info.Labels[pod.LabelUID])
		out[uid] = append(out[uid], info)
	}
	return out
}

// Pod returns the pod of a namespace and name; ok is false when this machine does not run it.
func (a *Agent) Pod(namespace, name string) (*pod.View, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.workers[a.names[types.NamespacedName{Namespace: namespace, Name: name}]]
	if w == nil {
		return nil, false
	}
	return w.View(), true
}

// List returns all pods of this machine.
func (a *Agent) List() []*v1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*v1.Pod, 0, len(a.workers))
	for _, w := range a.workers {
		out = append(out, w.View().Pod)
	}
	return out
}
