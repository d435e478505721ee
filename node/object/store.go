package object

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// DefaultLinger is how long an object stays cached and watched after its last use.
const DefaultLinger = 5 * time.Minute

// Options of a Store.
type Options struct {
	// Client reads the API.
	Client kubernetes.Interface
	// Linger is how long an unused object stays cached; zero means DefaultLinger.
	Linger time.Duration
	// Log may be nil.
	Log *slog.Logger
}

// Store caches the objects that pods refer to. Its methods may be called concurrently, and before Run; objects that it returns
// must not be changed.
type Store struct {
	options    Options
	configMaps kind
	secrets    kind
	services   *services

	// ctx ends the watches; wg counts them.
	stop context.CancelFunc
	base func() context.Context
	wg   sync.WaitGroup

	// mu guards entries.
	mu      sync.Mutex
	entries map[key]*entry
}

// New returns a store without any object.
func New(o Options) *Store {
	if o.Linger == 0 {
		o.Linger = DefaultLinger
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{options: o, entries: map[key]*entry{}, services: newServices(o.Client)}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.base = stop, func() context.Context { return ctx }
	api := o.Client.CoreV1()
	s.configMaps = kind{
		resource: v1.Resource("configmaps"),
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) ([]metav1.Object, string, error) {
			l, err := api.ConfigMaps(namespace).List(ctx, o)
			if err != nil {
				return nil, "", err
			}
			return objects(l.Items, func(c *v1.ConfigMap) metav1.Object { return c }), l.ResourceVersion, nil
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return api.ConfigMaps(namespace).Watch(ctx, o)
		},
	}
	s.secrets = kind{
		resource: v1.Resource("secrets"),
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) ([]metav1.Object, string, error) {
			l, err := api.Secrets(namespace).List(ctx, o)
			if err != nil {
				return nil, "", err
			}
			return objects(l.Items, func(c *v1.Secret) metav1.Object { return c }), l.ResourceVersion, nil
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return api.Secrets(namespace).Watch(ctx, o)
		},
	}
	return s
}

func objects[T any](items []T, as func(*T) metav1.Object) []metav1.Object {
	out := make([]metav1.Object, len(items))
	for i := range items {
		out[i] = as(&items[i])
	}
	return out
}

// Run watches services and forgets unused objects until ctx ends; then all watches have ended.
func (s *Store) Run(ctx context.Context) error {
	defer s.wg.Wait()
	defer s.stop()
	s.wg.Go(func() { s.services.run(ctx) })
	tick := time.NewTicker(s.options.Linger / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.sweep(now)
		}
	}
}

// ConfigMap returns a config map. One that does not exist is an API "not found" error.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	o, err := s.entry(&s.configMaps, namespace, name).get(ctx)
	if err != nil {
		return nil, err
	}
	return as[*v1.ConfigMap](o)
}

// Secret returns a secret. One that does not exist is an API "not found" error.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	o, err := s.entry(&s.secrets, namespace, name).get(ctx)
	if err != nil {
		return nil, err
	}
	return as[*v1.Secret](o)
}

func as[T metav1.Object](o metav1.Object) (T, error) {
	t, ok := o.(T)
	if !ok {
		return t, fmt.Errorf("object %s has the wrong type %T", o.GetName(), o)
	}
	return t, nil
}

// Services returns all services of the cluster, waiting until they have been read once.
func (s *Store) Services(ctx context.Context) ([]*v1.Service, error) { return s.services.all(ctx) }

// WatchConfigMap calls changed, from another goroutine and not for the present state, whenever the config map changes, appears or
// goes, until release is called. changed must not block.
func (s *Store) WatchConfigMap(namespace, name string, changed func()) (release func()) {
	return s.subscribe(&s.configMaps, namespace, name, changed)
}

// WatchSecret is WatchConfigMap for secrets.
func (s *Store) WatchSecret(namespace, name string, changed func()) (release func()) {
	return s.subscribe(&s.secrets, namespace, name, changed)
}

func (s *Store) subscribe(k *kind, namespace, name string, changed func()) func() {
	e := s.entry(k, namespace, name)
	e.mu.Lock()
	e.pins++
	e.subs[&changed] = struct{}{}
	e.mu.Unlock()
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.pins--
		e.used = time.Now()
		delete(e.subs, &changed)
	})
}

// entry returns the entry of an object and starts its watch when it is new.
func (s *Store) entry(k *kind, namespace, name string) *entry {
	id := key{kind: k, namespace: namespace, name: name}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil {
		e.mu.Lock()
		e.used = time.Now() // before sweep can look at it again
		e.mu.Unlock()
		return e
	}
	ctx, cancel := context.WithCancel(s.base())
	e := &entry{
		key: id, log: s.options.Log, cancel: cancel, read: make(chan struct{}), used: time.Now(), subs: map[*func()]struct{}{},
	}
	s.entries[id] = e
	s.wg.Go(func() { e.run(ctx) })
	return e
}

// sweep ends the watches of objects that nobody used for the linger time.
func (s *Store) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.entries {
		e.mu.Lock()
		idle := e.pins == 0 && now.Sub(e.used) >= s.options.Linger
		e.mu.Unlock()
		if idle {
			e.cancel()
			delete(s.entries, id)
		}
	}
}
