package object

import (
	"context"
	"fmt"
	"sync"

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
	cache.Store
	reflector *cache.Reflector
	// synced is closed when the first complete list is stored.
	synced chan struct{}
	first  sync.Once
}

var _ cache.ReflectorStore = (*services)(nil)

func newServices(client kubernetes.Interface) *services {
	api := client.CoreV1().Services(metav1.NamespaceAll)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
	}
	s := &services{Store: cache.NewStore(cache.MetaNamespaceKeyFunc), synced: make(chan struct{})}
	s.reflector = cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, client), &v1.Service{}, s,
		cache.ReflectorOptions{Name: "services of the node agent"})
	return s
}

// Replace stores a complete list, which the reflector has first of all.
func (s *services) Replace(list []any, version string) error {
	if err := s.Store.Replace(list, version); err != nil {
		return fmt.Errorf("storing the services: %w", err)
	}
	s.first.Do(func() { close(s.synced) })
	return nil
}

func (s *services) run(ctx context.Context) { s.reflector.RunWithContext(ctx) }

func (s *services) all(ctx context.Context) ([]*v1.Service, error) {
	select {
	case <-s.synced:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the services: %w", ctx.Err())
	}
	items := s.List()
	out := make([]*v1.Service, 0, len(items))
	for _, item := range items {
		if svc, ok := item.(*v1.Service); ok {
			out = append(out, svc)
		}
	}
	return out, nil
}
