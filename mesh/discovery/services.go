package discovery

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// services are all Services with their slices. It is not safe for concurrent use.
type services struct {
	// api replaces the endpoints of default/kubernetes when valid.
	api netip.AddrPort

	byKey map[types.NamespacedName]*service
}

type service struct {
	object *corev1.Service
	slices map[string]*discoveryv1.EndpointSlice
	// sent are the resources of the last compilation.
	sent map[distribute.Key]struct{}
}

func newServices(api netip.AddrPort) *services {
	return &services{api: api, byKey: make(map[types.NamespacedName]*service)}
}

func (s *services) of(key types.NamespacedName) *service {
	svc := s.byKey[key]
	if svc == nil {
		svc = &service{slices: make(map[string]*discoveryv1.EndpointSlice), sent: make(map[distribute.Key]struct{})}
		s.byKey[key] = svc
	}
	return svc
}

// putService takes the newest state of a Service, nil after its deletion, and returns what to change at the proxies.
func (s *services) putService(key types.NamespacedName, object *corev1.Service) ([]config.Resource, []distribute.Key) {
	s.of(key).object = object
	return s.compile(key)
}

// putSlice takes the newest state of an EndpointSlice, nil after its deletion, and returns what to change at the proxies.
func (s *services) putSlice(key types.NamespacedName, name string, slice *discoveryv1.EndpointSlice) ([]config.Resource, []distribute.Key) {
	if slice == nil {
		delete(s.of(key).slices, name)
	} else {
		s.of(key).slices[name] = slice
	}
	return s.compile(key)
}

// compile gives all resources of a Service: the distributor knows by their content which of them have changed.
func (s *services) compile(key types.NamespacedName) (upserts []config.Resource, deletes []distribute.Key) {
	svc := s.byKey[key]
	if svc.object != nil {
		slices := make([]*discoveryv1.EndpointSlice, 0, len(svc.slices))
		for _, slice := range svc.slices {
			slices = append(slices, slice)
		}
		upserts = CompileService(svc.object, slices)
	}
	if s.api.IsValid() && key == (types.NamespacedName{Namespace: "default", Name: "kubernetes"}) {
		pointTo(upserts, s.api)
	}
	sent := make(map[distribute.Key]struct{}, len(upserts))
	for _, res := range upserts {
		sent[distribute.Key{TypeURL: distribute.TypeURL(res), Name: res.GetName()}] = struct{}{}
	}
	for old := range svc.sent {
		if _, ok := sent[old]; !ok {
			deletes = append(deletes, old)
		}
	}
	svc.sent = sent
	if svc.object == nil && len(svc.slices) == 0 {
		delete(s.byKey, key)
	}
	return upserts, deletes
}

// pointTo replaces all endpoints by one.
func pointTo(resources []config.Resource, target netip.AddrPort) {
	for _, res := range resources {
		if endpoints, ok := res.(*config.Endpoints); ok {
			endpoints.Endpoints = []*config.Endpoint{{Address: target.Addr().String(), Port: uint32(target.Port())}}
		}
	}
}
