package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Name and namespace of the Service by which pods reach the proxies' cluster-local listener. The placeholder Services of Knative Routes
// are external names that lead to it.
const (
	GatewayNamespace = "weft-system"
	GatewayName      = "local-gateway"
)

// managedBy marks the EndpointSlice as not belonging to the EndpointSlice controller, which would remove it.
const managedBy = "discovery.weft.dev"

// retryPause is the time to the next attempt after the API server has refused one.
const retryPause = time.Second

var gatewayKey = types.NamespacedName{Namespace: GatewayNamespace, Name: GatewayName}

// gateway keeps the Service and its EndpointSlice as they must be.
type gateway struct {
	client client.Client
	target netip.AddrPort
	log    *slog.Logger
	// dirty holds a token while the objects may differ from what they must be.
	dirty chan struct{}
}

func newGateway(cl client.Client, target netip.AddrPort, log *slog.Logger) *gateway {
	g := &gateway{client: cl, target: target, log: log, dirty: make(chan struct{}, 1)}
	g.changed()
	return g
}

// changed never blocks.
func (g *gateway) changed() {
	select {
	case g.dirty <- struct{}{}:
	default:
	}
}

func (g *gateway) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.dirty:
		}
		err := g.ensure(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		g.log.Warn("keeping the local gateway", "error", err)
		retry := time.NewTimer(retryPause)
		select {
		case <-ctx.Done():
			retry.Stop()
			return nil
		case <-retry.C:
			g.changed()
		}
	}
}

// ensure creates or repairs the namespace, the Service and the EndpointSlice.
func (g *gateway) ensure(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: GatewayNamespace}}
	if err := g.client.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %s: %w", GatewayNamespace, err)
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: GatewayNamespace, Name: GatewayName}}
	if _, err := controllerutil.CreateOrUpdate(ctx, g.client, svc, func() error {
		svc.Spec.Type = corev1.ServiceTypeClusterIP
		svc.Spec.Selector = nil
		if len(svc.Spec.Ports) != 1 || svc.Spec.Ports[0].Port != 80 {
			svc.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(80)}}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("keeping service %s: %w", gatewayKey, err)
	}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: GatewayNamespace, Name: GatewayName}}
	if _, err := controllerutil.CreateOrUpdate(ctx, g.client, slice, func() error { return g.fill(slice, svc) }); err != nil {
		return fmt.Errorf("keeping endpoint slice %s: %w", gatewayKey, err)
	}
	return nil
}

func (g *gateway) fill(slice *discoveryv1.EndpointSlice, svc *corev1.Service) error {
	name, port, protocol, ready := svc.Spec.Ports[0].Name, int32(g.target.Port()), corev1.ProtocolTCP, true
	slice.AddressType = discoveryv1.AddressTypeIPv4
	slice.Ports = []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}
	slice.Endpoints = []discoveryv1.Endpoint{{
		Addresses:  []string{g.target.Addr().String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready},
	}}
	if slice.Labels == nil {
		slice.Labels = make(map[string]string)
	}
	slice.Labels[discoveryv1.LabelServiceName] = GatewayName
	slice.Labels[discoveryv1.LabelManagedBy] = managedBy
	return controllerutil.SetOwnerReference(svc, slice, g.client.Scheme())
}
