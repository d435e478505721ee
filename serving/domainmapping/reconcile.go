package domainmapping

import (
	"context"

	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/serving/owned"
	"github.com/weft-dev/weft/serving/route"
	"github.com/weft-dev/weft/serving/status"
)

// Reconciler reconciles DomainMappings. It is safe for concurrent use on different mappings.
type Reconciler struct {
	store    owned.Store
	settings func() route.Settings
	mesh     Mesh
	// certificates is nil where nothing provides them.
	certificates Certificates
}

// New returns a reconciler. The store has the indexes of AddIndexes in its cache; settings returns the present ones and is called once
// per reconciliation; certificates may be nil.
func New(store owned.Store, settings func() route.Settings, mesh Mesh, certificates Certificates) *Reconciler {
	return &Reconciler{store: store, settings: settings, mesh: mesh, certificates: certificates}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var mapping servingv1beta1.DomainMapping
	if err := r.store.Get(ctx, req.NamespacedName, &mapping); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if mapping.DeletionTimestamp != nil {
		return reconcile.Result{}, r.release(ctx, &mapping)
	}
	return status.Reconcile(ctx, r.store, req.NamespacedName, r.reconcile)
}

func (r *Reconciler) reconcile(ctx context.Context, mapping *servingv1beta1.DomainMapping) (reconcile.Result, error) {
	settings := r.settings()
	if mapping.Generation != mapping.Status.ObservedGeneration {
		// An error below must not leave the readiness of the last generation standing.
		mapping.Status.MarkIngressNotConfigured()
	}
	before := mapping.Status.DeepCopy()
	locate(mapping, settings)
	owns, err := r.claim(ctx, mapping, settings)
	if !owns || err != nil {
		return reconcile.Result{}, err
	}
	r.certify(mapping, before, settings)
	resolved, err := r.resolve(ctx, mapping, settings)
	if !resolved || err != nil {
		return reconcile.Result{}, err
	}
	r.reflectMesh(ctx, mapping)
	return reconcile.Result{}, nil
}

// locate sets where the mapping is reached.
func locate(mapping *servingv1beta1.DomainMapping, s route.Settings) {
	scheme := s.Config.Network.ExternalScheme
	if mapping.Spec.TLS != nil || s.ExternalTLS(mapping.Annotations) {
		scheme = "https"
	}
	reachBy(mapping, s, scheme)
}

func reachBy(mapping *servingv1beta1.DomainMapping, s route.Settings, scheme string) {
	url := s.ExternalURL(scheme, mapping.Name)
	mapping.Status.URL = url
	mapping.Status.Address = &duckv1.Addressable{URL: url}
}

// reflectMesh reports whether the mesh does what the mapping says.
func (r *Reconciler) reflectMesh(ctx context.Context, mapping *servingv1beta1.DomainMapping) {
	conditions := mapping.GetConditionSet().Manage(&mapping.Status)
	if programmed, why := r.mesh.MappingProgrammed(ctx, mapping); programmed {
		conditions.MarkTrue(servingv1beta1.DomainMappingConditionIngressReady)
	} else {
		conditions.MarkUnknown(servingv1beta1.DomainMappingConditionIngressReady, "IngressNotConfigured", "%s", why)
	}
}
