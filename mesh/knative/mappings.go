package knative

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/weft-dev/weft/mesh/config"
)

func (c *Controller) addMappings(mgr manager.Manager, changes func() <-chan event.GenericEvent) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("mesh-domainmapping").
		For(&servingv1beta1.DomainMapping{}).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(c.mappingsOf)).
		WithOptions(controller.Options{NeedLeaderElection: new(false)})
	if changes != nil {
		b = b.WatchesRawSource(source.Channel(changes(), c.every(func() client.ObjectList { return &servingv1beta1.DomainMappingList{} })))
	}
	err := b.Complete(reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		return reconcile.Result{}, c.reconcileMapping(ctx, req.NamespacedName)
	}))
	if err != nil {
		return fmt.Errorf("adding the compiler of domain mappings: %w", err)
	}
	return nil
}

// mappingsOf maps a Kubernetes Service to the mappings that lead to it.
func (c *Controller) mappingsOf(_ context.Context, service client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, key := range c.table.followersOf(service.GetName() + "." + service.GetNamespace() + c.naming.clusterSuffix()) {
		requests = append(requests, reconcile.Request{NamespacedName: key})
	}
	return requests
}

// reconcileMapping compiles one mapping and hands it to the distributor. One whose namespace does not own the domain has no host.
func (c *Controller) reconcileMapping(ctx context.Context, name types.NamespacedName) error {
	key := mappingKey(name)
	var mapping servingv1beta1.DomainMapping
	err := c.client.Get(ctx, name, &mapping)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return fmt.Errorf("reading %s: %w", key, err)
	}
	if gone || !mapping.DeletionTimestamp.IsZero() || !claimed(&mapping) {
		return c.remove(key, config.DomainMappingRoute(name.Namespace, name.Name))
	}
	service, err := c.serviceOf(ctx, &mapping)
	if err != nil {
		return err
	}
	send, _ := c.table.set(c.compileMapping(&mapping, service))
	upserts := make([]config.Resource, 0, len(send))
	for _, r := range send {
		upserts = append(upserts, r)
	}
	if err := c.distributor.Apply(upserts, nil); err != nil {
		return fmt.Errorf("distributing %s: %w", key, err)
	}
	return nil
}

// serviceOf reads the Kubernetes Service that a mapping's reference names, nil if it names something else or nothing that exists.
func (c *Controller) serviceOf(ctx context.Context, mapping *servingv1beta1.DomainMapping) (*corev1.Service, error) {
	ref := &mapping.Spec.Ref
	if ref.APIVersion != "v1" || ref.Kind != "Service" {
		return nil, nil //nolint:nilnil // no service is no error
	}
	var service corev1.Service
	err := c.client.Get(ctx, client.ObjectKey{Namespace: mapping.Namespace, Name: ref.Name}, &service)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // no service is no error
	case err != nil:
		return nil, fmt.Errorf("reading service %q: %w", ref.Name, err)
	}
	return &service, nil
}

// claimed says whether the mapping's namespace owns the domain.
func claimed(mapping *servingv1beta1.DomainMapping) bool {
	return mapping.Status.GetCondition(servingv1beta1.DomainMappingConditionDomainClaimed).IsTrue()
}

// MappingProgrammed reports whether the proxies serve the host of this mapping by the rules of its target, or why they do not, in words for
// its IngressReady condition. Once they do, it stays true for that generation while the target's traffic moves and proxies come and go.
// It may be called concurrently, reads from the cache only, and does not modify the mapping.
func (c *Controller) MappingProgrammed(ctx context.Context, mapping *servingv1beta1.DomainMapping) (ok bool, why string) {
	if !claimed(mapping) {
		return false, "the domain is not claimed yet"
	}
	if c.programmed.starting() && mappingReady(mapping) {
		return true, ""
	}
	service, err := c.serviceOf(ctx, mapping)
	if err != nil {
		return false, err.Error()
	}
	want := c.compileMapping(mapping, service)
	version, conflict, empty := c.table.wantMapping(want)
	switch {
	case conflict != "":
		return false, conflict
	case want.problem != "":
		return false, want.problem
	case empty:
		return false, want.target.problem
	}
	ok, why = c.distributor.Acked(config.RouteType, want.route.GetName(), version)
	switch {
	case ok:
		c.programmed.remember(want.key, mappingVersion(mapping))
		return true, ""
	case c.programmed.at(want.key, mappingVersion(mapping)) && !strings.Contains(why, "rejected"):
		return true, ""
	}
	return false, why
}

// MappingChanges delivers a DomainMapping, by namespace and name, each time the answer of MappingProgrammed for it may have changed.
// Names that change faster than the channel is read coalesce. There is one channel, for one reader.
func (c *Controller) MappingChanges() <-chan event.GenericEvent { return c.mappingChanges }

// mappingVersion is what a mapping is remembered by. The version of its route would not do: it changes with the target's traffic.
func mappingVersion(mapping *servingv1beta1.DomainMapping) string {
	return string(mapping.UID) + "/" + strconv.FormatInt(mapping.Generation, 10)
}

// mappingReady says whether the mapping's last written status calls it programmed.
func mappingReady(mapping *servingv1beta1.DomainMapping) bool {
	return mapping.Status.ObservedGeneration == mapping.Generation &&
		mapping.Status.GetCondition(servingv1beta1.DomainMappingConditionIngressReady).IsTrue()
}

// restoreMapping takes over a mapping that was programmed before this process started: the proxies kept it.
func (p *programmed) restoreMapping(mapping *servingv1beta1.DomainMapping) {
	if mappingReady(mapping) {
		p.remember(mappingKey(client.ObjectKeyFromObject(mapping)), mappingVersion(mapping))
	}
}
