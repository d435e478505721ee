package object

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// retryMin and retryMax bound the pause after a watch that failed. The first retry is quick because the usual cause is an API server
// that restarts.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

// kind is how to list and watch one type of object.
type kind struct {
	resource schema.GroupResource
	list     func(ctx context.Context, namespace string, o metav1.ListOptions) (items []metav1.Object, version string, err error)
	watch    func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error)
}

// key names one object.
type key struct {
	kind      *kind
	namespace string
	name      string
}

// entry is one watched object.
type entry struct {
	key    key
	log    *slog.Logger
	cancel context.CancelFunc
	// read is closed when the object, or its absence, is known for the first time.
	read chan struct{}

	// mu guards everything below.
	mu sync.Mutex
	// object is nil while the object does not exist or err is set.
	object metav1.Object
	// err is why the object could not be read yet.
	err error
	// pins counts the pods that refer to the object; used is when a pod last read or unpinned it.
	pins int
	used time.Time
	subs map[*func()]struct{}
}

// get waits for the first answer and returns the object.
func (e *entry) get(ctx context.Context) (metav1.Object, error) {
	select {
	case <-e.read:
	case <-ctx.Done():
		return nil, fmt.Errorf("reading %s %s/%s: %w", e.key.kind.resource, e.key.namespace, e.key.name, ctx.Err())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.object != nil:
		return e.object, nil
	case e.err != nil:
		return nil, e.err
	default:
		return nil, apierrors.NewNotFound(e.key.kind.resource, e.key.name)
	}
}

// run keeps the object current until ctx ends.
func (e *entry) run(ctx context.Context) {
	pause := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		if err := e.follow(ctx); err != nil && ctx.Err() == nil {
			e.log.Debug("watching an object ended", "object", e.key.namespace+"/"+e.key.name, "err", err)
		}
		if time.Since(began) > retryMax {
			pause = retryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

// follow reads the object once and then applies the events of one watch.
func (e *entry) follow(ctx context.Context) error {
	o := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", e.key.name).String()}
	items, version, err := e.key.kind.list(ctx, e.key.namespace, o)
	if err != nil {
		if ctx.Err() == nil {
			e.set(nil, err)
		}
		return fmt.Errorf("listing: %w", err)
	}
	var object metav1.Object
	for _, item := range items {
		if item.GetName() == e.key.name { // a server without field selectors answers with more
			object = item
		}
	}
	e.set(object, nil)
	o.ResourceVersion, o.AllowWatchBookmarks = version, true
	w, err := e.key.kind.watch(ctx, e.key.namespace, o)
	if err != nil {
		return fmt.Errorf("opening the watch: %w", err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, open := <-w.ResultChan():
			if !open {
				return nil
			}
			if err := e.apply(ev.Type, ev.Object); err != nil {
				return err
			}
		}
	}
}

func (e *entry) apply(event watch.EventType, obj runtime.Object) error {
	if event == watch.Error {
		return apierrors.FromObject(obj)
	}
	object, ok := obj.(metav1.Object)
	if !ok || object.GetName() != e.key.name {
		return nil
	}
	switch event {
	case watch.Added, watch.Modified:
		e.set(object, nil)
	case watch.Deleted:
		e.set(nil, nil)
	}
	return nil
}

// set stores what was read and tells subscribers when it differs.
func (e *entry) set(object metav1.Object, err error) {
	e.mu.Lock()
	changed := version(object) != version(e.object)
	first := false
	select {
	case <-e.read:
		if err != nil {
			e.mu.Unlock()
			return // an object once read stays valid while the API cannot be reached
		}
	default:
		first = true
	}
	e.object, e.err = object, err
	var subs []*func()
	for s := range e.subs {
		subs = append(subs, s)
	}
	e.mu.Unlock()
	if first {
		close(e.read)
		return
	}
	if changed {
		for _, s := range subs {
			(*s)()
		}
	}
}

func version(o metav1.Object) string {
	if o == nil {
		return ""
	}
	return string(o.GetUID()) + "/" + o.GetResourceVersion()
}
