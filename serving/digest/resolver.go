// Package digest resolves the tags of a revision's images to digests, so that all instances of a revision run the same image
// however the tag moves. The revision reconciler asks it; serving.AddToManager runs it. It must not import a reconciler.
package digest

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/serving/config"
)

const (
	// workers bounds the registries that are asked at the same time.
	workers = 16
	// firstRetry and lastRetry bound the back-off of a revision whose images cannot be resolved.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Options of a Resolver. Only Reader and Config are required.
type Options struct {
	// Reader reads service accounts and secrets from the API server: a cache would hold every secret of the cluster.
	Reader client.Reader
	// Config returns the configuration in force, with the registries to skip and the timeout.
	Config func() *config.Snapshot
	// Keychain makes credentials of pull secrets. It may return both a keychain and an error about some of them. Nil means
	// that registries are asked without credentials.
	Keychain func(secrets []corev1.Secret) (authn.Keychain, error)
	// Present says whether the machine has an image under that name already. Its tag is then left as it is: it may be in no
	// registry at all. Nil means that none is.
	Present func(image string) bool
	// Transport reaches registries; http.DefaultTransport by default.
	Transport http.RoundTripper
}

// Resolver resolves in the background. Its methods may be called concurrently.
type Resolver struct {
	options Options
	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	changes chan event.GenericEvent

	// mu guards entries and what they point to.
	mu      sync.Mutex
	entries map[types.NamespacedName]*entry
}

// entry is the state of one revision.
type entry struct {
	revision *servingv1.Revision
	// digests by image, complete when done. An empty digest leaves the image as it is.
	digests map[string]string
	done    bool
	// err is why the last attempt failed.
	err error
}

// New returns a Resolver, which does nothing before Start.
func New(o Options) *Resolver {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Keychain == nil {
		o.Keychain = func([]corev1.Secret) (authn.Keychain, error) { return authn.NewMultiKeychain(), nil }
	}
	if o.Present == nil {
		o.Present = func(string) bool { return false }
	}
	return &Resolver{
		options: o,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, lastRetry)),
		changes: make(chan event.GenericEvent, workers),
		entries: map[types.NamespacedName]*entry{},
	}
}

// Changes delivers the revisions for which Resolve has a new answer.
func (r *Resolver) Changes() <-chan event.GenericEvent { return r.changes }

// Resolve returns the statuses of all containers of a revision, or ready=false while they are being resolved; Changes tells
// when to ask again. An error stays until a later attempt, which comes by itself, succeeds. Images that need no registry are
// answered at once.
func (r *Resolver) Resolve(rev *servingv1.Revision) (containers, initContainers []servingv1.ContainerStatus, ready bool, err error) {
	if digests, ok := r.static(rev); ok {
		return statuses(rev.Spec.Containers, digests), statuses(rev.Spec.InitContainers, digests), true, nil
	}
	key := client.ObjectKeyFromObject(rev)
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[key]
	if !ok || e.revision.UID != rev.UID {
		r.entries[key] = &entry{revision: rev.DeepCopy()}
		r.queue.Add(key)
		return nil, nil, false, nil
	}
	if !e.done {
		return nil, nil, false, e.err
	}
	return statuses(rev.Spec.Containers, e.digests), statuses(rev.Spec.InitContainers, e.digests), true, nil
}

// Forget drops what is remembered of a revision once it has stored its digests.
func (r *Resolver) Forget(key client.ObjectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, key)
}

// Start resolves until ctx ends, and waits for what it has begun. It implements manager.Runnable.
func (r *Resolver) Start(ctx context.Context) error {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				key, stopped := r.queue.Get()
				if stopped {
					return
				}
				r.attempt(ctx, key)
				r.queue.Done(key)
			}
		})
	}
	<-ctx.Done()
	r.queue.ShutDown()
	group.Wait()
	return nil
}

// attempt resolves one revision and announces the outcome.
func (r *Resolver) attempt(ctx context.Context, key types.NamespacedName) {
	r.mu.Lock()
	e, ok := r.entries[key]
	r.mu.Unlock()
	if !ok || r.queue.NumRequeues(key) > 0 && r.gone(ctx, e.revision) {
		r.queue.Forget(key)
		r.Forget(key)
		return
	}
	digests, err := r.resolve(ctx, e.revision)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	e.digests, e.done, e.err = digests, err == nil, err
	r.mu.Unlock()
	if err != nil {
		r.queue.AddRateLimited(key)
	} else {
		r.queue.Forget(key)
	}
	changed := event.GenericEvent{Object: &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}}
	select {
	case r.changes <- changed:
	case <-ctx.Done():
	}
}

// gone says whether a revision whose images cannot be resolved need not be tried again.
func (r *Resolver) gone(ctx context.Context, rev *servingv1.Revision) bool {
	var stored servingv1.Revision
	err := r.options.Reader.Get(ctx, client.ObjectKeyFromObject(rev), &stored)
	return apierrors.IsNotFound(err) || err == nil && stored.UID != rev.UID
}

// static returns the digests of a revision when no registry need be asked.
func (r *Resolver) static(rev *servingv1.Revision) (map[string]string, bool) {
	digests := map[string]string{}
	for _, image := range images(rev) {
		if _, err := name.NewDigest(image, name.WeakValidation); err == nil {
			digests[image] = image
			continue
		}
		tag, err := name.NewTag(image, name.WeakValidation)
		if err != nil {
			return nil, false
		}
		if !r.options.Config().Deployment.SkipTagResolving.Has(tag.RegistryStr()) && !r.options.Present(image) {
			return nil, false
		}
		digests[image] = ""
	}
	return digests, true
}

// images returns the images of all containers of a revision.
func images(rev *servingv1.Revision) []string {
	var out []string
	for _, containers := range [][]corev1.Container{rev.Spec.InitContainers, rev.Spec.Containers} {
		for i := range containers {
			out = append(out, containers[i].Image)
		}
	}
	return out
}

func statuses(containers []corev1.Container, digests map[string]string) []servingv1.ContainerStatus {
	var out []servingv1.ContainerStatus
	for i := range containers {
		out = append(out, servingv1.ContainerStatus{Name: containers[i].Name, ImageDigest: digests[containers[i].Image]})
	}
	return out
}

// missing is the error of an image that cannot be resolved, in upstream's words.
func missing(image string, err error) error {
	return fmt.Errorf("%s: %w", servingv1.RevisionContainerMissingMessage(image, "failed to resolve image to digest"), err)
}
