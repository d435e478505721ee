package object

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// services keeps all services of the cluster. Pods see those of their namespace as variables, so that watching one by one would
// not do.
type services struct {
	store      cache.Store
	controller cache.Controller
	synced     chan struct{}
}

func newServices(client kubernetes.Interface) *services {
	api := client.CoreV1().Services(metav1.NamespaceAll)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
	}
	s := &services{synced: make(chan struct{})}
	s.store, s.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client),
		ObjectType:    &v1.Service{},
		Handler:       cache.ResourceEventHandlerFuncs{},
	})
	return s
}

func (s *services) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if cache.WaitForCacheSync(ctx.Done(), s.controller.HasSynced) {
			close(s.synced)
		}
	}()
	s.controller.RunWithContext(ctx)
	<-done
}

func (s *services) list(ctx context.Context) ([]*v1.Service, error) {
	select {
	case <-s.synced:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the services: %w", ctx.Err())
	}
	items := s.store.List()
	out := make([]*v1.Service, 0, len(items))
	for _, item := range items {
		if svc, ok := item.(*v1.Service); ok {
			out = append(out, svc)
		}
	}
	return out, nil
}
