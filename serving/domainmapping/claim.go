package domainmapping

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/status"
)

// Finalizer keeps a mapping until its claim is released. It is upstream's, so that mappings can change hands.
const Finalizer = "domainmappings.serving.knative.dev"

// claim makes sure that the mapping's namespace owns the domain and reports it. A namespace that does not is told so and waits: the watch
// on claims brings the mapping back.
func (r *Reconciler) claim(ctx context.Context, mapping *servingv1beta1.DomainMapping, s route.Settings) (owns bool, err error) {
	var claim netv1alpha1.ClusterDomainClaim
	err = r.store.Get(ctx, client.ObjectKey{Name: mapping.Name}, &claim)
	if apierrors.IsNotFound(err) {
		if !s.Config.Network.AutocreateClusterDomainClaims {
			notOwned(mapping, "nobody has claimed domain %q: an administrator creates a ClusterDomainClaim of that name for namespace %q, or sets "+
				"autocreate-cluster-domain-claims in config-network", mapping.Name, mapping.Namespace)
			return false, nil
		}
		err = r.create(ctx, mapping, &claim)
	}
	switch {
	case err != nil:
		mapping.Status.MarkDomainClaimFailed(status.Escape(err.Error()))
		return false, fmt.Errorf("claiming domain %q: %w", mapping.Name, err)
	case claim.Spec.Namespace != mapping.Namespace || claim.DeletionTimestamp != nil:
		notOwned(mapping, "domain %q is claimed by namespace %q", mapping.Name, claim.Spec.Namespace)
		return false, nil
	}
	mapping.Status.MarkDomainClaimed()
	if automatic(&claim, mapping) {
		// It may be that of a mapping that went without releasing it.
		err = r.finalize(ctx, mapping)
	}
	return true, err
}

// notOwned reports that the domain is somebody else's, or nobody's, by upstream's reason and in more words. It is no error: nothing changes
// by trying again.
func notOwned(mapping *servingv1beta1.DomainMapping, format string, args ...any) {
	mapping.GetConditionSet().Manage(&mapping.Status).
		MarkFalse(servingv1beta1.DomainMappingConditionDomainClaimed, "DomainAlreadyClaimed", format, args...)
	mapping.Status.MarkIngressNotConfigured()
}

// automatic says whether a claim was made for a mapping of the namespace, and not by an administrator.
func automatic(claim *netv1alpha1.ClusterDomainClaim, mapping *servingv1beta1.DomainMapping) bool {
	return claim.Spec.Namespace == mapping.Namespace && claim.Labels[serving.DomainMappingNamespaceLabelKey] == mapping.Namespace
}

// create makes the claim of a mapping, or reads the one that somebody else was faster with.
func (r *Reconciler) create(ctx context.Context, mapping *servingv1beta1.DomainMapping, claim *netv1alpha1.ClusterDomainClaim) error {
	// Before the claim: one without a finalizer behind it would stay for ever.
	if err := r.finalize(ctx, mapping); err != nil {
		return err
	}
	*claim = netv1alpha1.ClusterDomainClaim{
		ObjectMeta: metav1.ObjectMeta{Name: mapping.Name, Labels: map[string]string{
			serving.DomainMappingUIDLabelKey:       string(mapping.UID),
			serving.DomainMappingNamespaceLabelKey: mapping.Namespace,
		}},
		Spec: netv1alpha1.ClusterDomainClaimSpec{Namespace: mapping.Namespace},
	}
	err := r.store.Create(ctx, claim)
	if apierrors.IsAlreadyExists(err) {
		return r.store.Live.Get(ctx, client.ObjectKey{Name: mapping.Name}, claim)
	}
	if err != nil {
		return err
	}
	r.store.Events.Eventf(mapping, nil, corev1.EventTypeNormal, "Created", "Create", "Created cluster domain claim %q", mapping.Name)
	return nil
}

func (r *Reconciler) finalize(ctx context.Context, mapping *servingv1beta1.DomainMapping) error {
	if controllerutil.ContainsFinalizer(mapping, Finalizer) {
		return nil
	}
	stored := &servingv1beta1.DomainMapping{ObjectMeta: *mapping.ObjectMeta.DeepCopy()}
	before := stored.DeepCopy()
	controllerutil.AddFinalizer(stored, Finalizer)
	if err := r.store.Patch(ctx, stored, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("adding the finalizer: %w", err)
	}
	mapping.Finalizers, mapping.ResourceVersion = stored.Finalizers, stored.ResourceVersion
	return nil
}

// release gives up the domain of a mapping that is being deleted, unless somebody else has claimed it for the namespace: what an
// administrator has made stays.
func (r *Reconciler) release(ctx context.Context, mapping *servingv1beta1.DomainMapping) error {
	if !controllerutil.ContainsFinalizer(mapping, Finalizer) {
		return nil
	}
	var claim netv1alpha1.ClusterDomainClaim
	err := r.store.Live.Get(ctx, client.ObjectKey{Name: mapping.Name}, &claim)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("reading the claim of domain %q: %w", mapping.Name, err)
	case automatic(&claim, mapping):
		if err := r.store.Delete(ctx, &claim, client.Preconditions{UID: &claim.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting the claim of domain %q: %w", mapping.Name, err)
		}
	}
	before := mapping.DeepCopy()
	controllerutil.RemoveFinalizer(mapping, Finalizer)
	if err := r.store.Patch(ctx, mapping, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("removing the finalizer of domain mapping %q: %w", mapping.Name, err)
	}
	return nil
}
