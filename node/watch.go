package node

import (
	"context"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/pod"
)

// watch follows the pods that are bound to this node until ctx ends. The reflector calls the workers without a queue between:
// nothing is polled and nothing is synchronised again. left are the containers of an earlier process.
func (a *Agent) watch(ctx context.Context, left map[types.UID][]container.Info) {
	selector := fields.OneTermEqualSelector("spec.nodeName", a.o.NodeName).String()
	api := a.client.CoreV1().Pods(metav1.NamespaceAll)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return api.Watch(ctx, o)
		},
	}
	store := &podStore{agent: a, ctx: func() context.Context { return ctx }, left: left}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, a.client), &v1.Pod{}, store,
		cache.ReflectorOptions{Name: "node agent"}).RunWithContext(ctx)
}

// podStore is what the reflector fills. It calls the methods one after the other.
type podStore struct {
	agent *Agent
	ctx   func() context.Context
	left  map[types.UID][]container.Info
	// adopted makes the first complete list the moment of adoption.
	adopted sync.Once
}

var _ cache.ReflectorStore = (*podStore)(nil)

// Add starts the worker of a pod that was bound to this node.
func (s *podStore) Add(obj any) error {
	if p, ok := obj.(*v1.Pod); ok && p.Spec.NodeName == s.agent.o.NodeName {
		s.agent.update(s.ctx(), p, nil)
	}
	return nil
}

// Update tells the worker of a pod that it has changed.
func (s *podStore) Update(obj any) error { return s.Add(obj) }

// Delete tells the worker of a pod that the API no longer has it.
func (s *podStore) Delete(obj any) error {
	if p, ok := obj.(*v1.Pod); ok {
		s.agent.remove(p.UID, p)
	}
	return nil
}

// Replace brings the workers in line with the complete list of pods, as at the begin and after the watch was broken for long.
func (s *podStore) Replace(list []any, _ string) error {
	pods := make(map[types.UID]*v1.Pod, len(list))
	for _, obj := range list {
		if p, ok := obj.(*v1.Pod); ok && p.Spec.NodeName == s.agent.o.NodeName {
			pods[p.UID] = p
		}
	}
	s.adopted.Do(func() { s.agent.adopt(s.ctx(), pods, s.left) })
	for uid, p := range pods {
		s.agent.update(s.ctx(), p, s.left[uid])
	}
	s.agent.removeExcept(pods)
	s.left = nil
	return nil
}

// Resync does nothing: workers know what they have to do.
func (s *podStore) Resync() error { return nil }

// worker is a pod's worker. Both flags belong to the agent's mu.
type worker struct {
	*pod.Worker
	// ended says that the worker's Run has returned, gone that the API no longer has the pod. The worker is kept until both are true:
	// a late event of a pod that has ended must not start it again.
	ended, gone bool
}

// update gives a pod to its worker, starting one for a pod that is new.
func (a *Agent) update(ctx context.Context, p *v1.Pod, left []container.Info) {
	a.mu.Lock()
	w := a.workers[p.UID]
	a.mu.Unlock()
	if w != nil {
		w.Update(p)
		return
	}
	a.start(ctx, pod.New(a.shared, p, left), false)
}

// remove tells the worker of a pod that the API no longer has it. last is its last version or nil.
func (a *Agent) remove(uid types.UID, last *v1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.workers[uid]
	if w == nil {
		return
	}
	w.gone = true
	w.Remove(last)
	a.forget(uid, w)
}

func (a *Agent) removeExcept(pods map[types.UID]*v1.Pod) {
	a.mu.Lock()
	var gone []types.UID
	for uid, w := range a.workers {
		if pods[uid] == nil && !w.gone {
			gone = append(gone, uid)
		}
	}
	a.mu.Unlock()
	for _, uid := range gone {
		a.remove(uid, nil)
	}
}

// start runs a worker until its pod is gone from this machine, or until ctx ends.
func (a *Agent) start(ctx context.Context, p *pod.Worker, gone bool) {
	object := p.View().Pod
	uid, name := object.UID, types.NamespacedName{Namespace: object.Namespace, Name: object.Name}
	w := &worker{Worker: p, gone: gone}
	a.mu.Lock()
	a.workers[uid] = w
	if _, taken := a.names[name]; !taken || !gone {
		a.names[name] = uid
	}
	a.mu.Unlock()
	a.running.Go(func() {
		p.Run(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		w.ended = true
		a.forget(uid, w)
	})
}

// forget drops a worker that has ended and whose pod is gone. It wants a.mu held.
func (a *Agent) forget(uid types.UID, w *worker) {
	if !w.ended || !w.gone {
		return
	}
	delete(a.workers, uid)
	object := w.View().Pod
	name := types.NamespacedName{Namespace: object.Namespace, Name: object.Name}
	if a.names[name] == uid {
		delete(a.names, name)
	}
}
