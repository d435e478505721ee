package revision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/status"
)

// Kinds as events and conditions name them.
const (
	kindDeployment    = "Deployment"
	kindPodAutoscaler = "PodAutoscaler"
)

// Reconciler makes a Deployment and a PodAutoscaler of each Revision. It is safe for concurrent use on different Revisions.
type Reconciler struct {
	store   owned.Store
	config  func() *config.Snapshot
	digests Digests
	now     func() time.Time
}

// Options are what a Reconciler works with.
type Options struct {
	// Store has the indexes of AddIndexes in its cache.
	Store owned.Store
	// Config returns the configuration in force; it is called once per reconciliation.
	Config func() *config.Snapshot
	// Digests resolves the tags of images. Nil leaves images as they are.
	Digests Digests
	// Now is the clock.
	Now func() time.Time
}

// Digests resolves images to their digests, in the background: registries are slow.
type Digests interface {
	// Resolve returns the statuses of all containers of a revision, or ready=false while it resolves them; the revision is
	// then reconciled again when there is an outcome. An error is an outcome too, which a later attempt may change.
	// Concurrent calls are allowed.
	Resolve(r *servingv1.Revision) (containers, initContainers []servingv1.ContainerStatus, ready bool, err error)
	// Forget drops what is remembered of a revision that has stored its digests.
	Forget(key client.ObjectKey)
}

// New returns a reconciler.
func New(o Options) *Reconciler {
	return &Reconciler{store: o.Store, config: o.Config, digests: o.Digests, now: o.Now}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	lives := false
	result, err := status.Reconcile(ctx, r.store, req.NamespacedName, func(ctx context.Context, rev *servingv1.Revision) (reconcile.Result, error) {
		lives = true
		return r.reconcile(ctx, rev)
	})
	if !lives && err == nil && r.digests != nil {
		r.digests.Forget(req.NamespacedName)
	}
	return result, err
}

func (r *Reconciler) reconcile(ctx context.Context, rev *servingv1.Revision) (reconcile.Result, error) {
	wasReady := rev.Status.GetCondition(servingv1.RevisionConditionReady).IsTrue()
	snapshot := r.config()
	rev.Status.LogURL = strings.ReplaceAll(snapshot.Observability.LogURLTemplate, "${REVISION_UID}", string(rev.UID))

	if !r.resolve(rev) {
		return reconcile.Result{}, nil
	}
	deployment, created, err := r.deployment(ctx, rev, snapshot)
	if err != nil {
		return reconcile.Result{}, err
	}
	var pods []corev1.Pod
	if created {
		rev.Status.MarkResourcesAvailableUnknown(servingv1.ReasonDeploying, "")
		rev.Status.MarkContainerHealthyUnknown(servingv1.ReasonDeploying, "")
	} else {
		if pods, err = r.pods(ctx, rev); err != nil {
			return reconcile.Result{}, err
		}
		reflectDeployment(&rev.Status, deployment, pods, snapshot)
	}
	if err := r.autoscaler(ctx, rev, deployment, snapshot); err != nil {
		return reconcile.Result{}, err
	}
	wait := reflectSlowStart(&rev.Status, pods, r.now())
	if !wasReady && rev.Status.GetCondition(servingv1.RevisionConditionReady).IsTrue() {
		r.store.Events.Eventf(rev, nil, corev1.EventTypeNormal, "RevisionReady", "Reconcile",
			"Revision becomes ready upon all resources being ready")
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// resolve fills in the digests of the images, once: a revision keeps the images that it started with.
func (r *Reconciler) resolve(rev *servingv1.Revision) (ready bool) {
	done := len(rev.Spec.Containers) == len(rev.Status.ContainerStatuses) && len(rev.Spec.InitContainers) == len(rev.Status.InitContainerStatuses)
	if r.digests == nil {
		if done {
			return true
		}
		rev.Status.ContainerStatuses = unresolved(rev.Spec.Containers)
		rev.Status.InitContainerStatuses = unresolved(rev.Spec.InitContainers)
		return true
	}
	if done {
		r.digests.Forget(client.ObjectKeyFromObject(rev))
		return true
	}
	containers, initContainers, ready, err := r.digests.Resolve(rev)
	switch {
	case err != nil:
		rev.Status.MarkContainerHealthyFalse(servingv1.ReasonContainerMissing, err.Error())
		return false
	case !ready:
		rev.Status.MarkResourcesAvailableUnknown(servingv1.ReasonResolvingDigests, "")
		return false
	}
	rev.Status.ContainerStatuses, rev.Status.InitContainerStatuses = containers, initContainers
	if rev.Status.GetCondition(servingv1.RevisionConditionContainerHealthy).GetReason() == servingv1.ReasonContainerMissing {
		rev.Status.MarkContainerHealthyUnknown(servingv1.ReasonDeploying, "")
	}
	return true
}

func unresolved(containers []corev1.Container) []servingv1.ContainerStatus {
	var out []servingv1.ContainerStatus
	for i := range containers {
		out = append(out, servingv1.ContainerStatus{Name: containers[i].Name, ImageDigest: containers[i].Image})
	}
	return out
}

func (r *Reconciler) deployment(ctx context.Context, rev *servingv1.Revision, s *config.Snapshot) (*appsv1.Deployment, bool, error) {
	want, err := Deployment(rev, s)
	if err != nil {
		return nil, false, err
	}
	have, created, err := owned.Ensure(ctx, r.store, rev, want, kindDeployment)
	if err != nil {
		explain(&rev.Status, err)
		return nil, false, err
	}
	if created {
		return have, true, nil
	}
	if updated := Update(have, want); updated != nil {
		return updated, false, r.store.Save(ctx, updated, kindDeployment)
	}
	return have, false, nil
}

func (r *Reconciler) autoscaler(ctx context.Context, rev *servingv1.Revision, d *appsv1.Deployment, s *config.Snapshot) error {
	have, created, err := owned.Ensure(ctx, r.store, rev, PodAutoscaler(rev, d, s), kindPodAutoscaler)
	if err != nil {
		explain(&rev.Status, err)
		return err
	}
	reflectAutoscaler(&rev.Status, have)
	if created {
		return nil
	}
	// Built again: what the revision is has just been decided, and reachability depends on it.
	want := PodAutoscaler(rev, d, s)
	merged := scaling(have.Annotations, want.Annotations)
	if equality.Semantic.DeepEqual(want.Spec, have.Spec) && equality.Semantic.DeepEqual(merged, have.Annotations) {
		return nil
	}
	updated := have.DeepCopy()
	updated.Spec, updated.Annotations = want.Spec, merged
	return r.store.Save(ctx, updated, kindPodAutoscaler)
}

// explain says in the conditions why an object could not be had.
func explain(rs *servingv1.RevisionStatus, err error) {
	notOwned, refused := (*owned.NotOwnedError)(nil), (*apierrors.StatusError)(nil)
	switch {
	case errors.As(err, &notOwned):
		rs.MarkResourcesAvailableFalse(servingv1.ReasonNotOwned, servingv1.ResourceNotOwnedMessage(notOwned.Kind, notOwned.Name))
	case errors.As(err, &refused) && (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)):
		rs.MarkResourcesAvailableFalse("FailedCreate", status.Escape(refused.Error()))
	}
}

// pods returns those of the revision that are not being deleted, by name. They are the cache's and must not be changed.
func (r *Reconciler) pods(ctx context.Context, rev *servingv1.Revision) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := r.store.List(ctx, &pods, client.InNamespace(rev.Namespace), client.MatchingFields{podsByRevision: rev.Name},
		client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing pods of revision %q: %w", rev.Name, err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }), nil
}
