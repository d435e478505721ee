package discovery

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weft-dev/weft/mesh/config"
)

// CompileService turns a Service and its EndpointSlices into the Service that DNS and capture use and, for each port of a cluster IP, a
// Backend and Endpoints. The result does not depend on the order of the slices.
func CompileService(svc *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice) []config.Resource {
	service := &config.Service{Name: svc.Namespace + "/" + svc.Name}
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		service.ExternalName = svc.Spec.ExternalName
		return []config.Resource{service}
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		service.HeadlessAddresses = headlessAddresses(endpointSlices)
		service.Ports = headlessPorts(endpointSlices)
		return []config.Resource{service}
	}
	for _, ip := range clusterIPs(svc) {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4() {
			service.ClusterIps = append(service.ClusterIps, ip)
		}
	}
	resources := []config.Resource{service}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		udp := port.Protocol == corev1.ProtocolUDP
		if port.Protocol == corev1.ProtocolSCTP || len(service.GetClusterIps()) == 0 {
			continue
		}
		number := uint16(port.Port)
		name := config.ServiceBackend(svc.Namespace, svc.Name, number, udp)
		service.Ports = append(service.Ports, &config.ServicePort{Name: port.Name, Port: uint32(number), Backend: name, Udp: udp})
		protocol := config.Backend_TCP
		switch {
		case udp:
			protocol = config.Backend_UDP
		case value(port.AppProtocol) == "kubernetes.io/h2c":
			protocol = config.Backend_H2C // capture carries its bytes like those of any other
		}
		resources = append(resources,
			&config.Backend{Name: name, Protocol: protocol},
			&config.Endpoints{Name: name, Endpoints: portEndpoints(port, endpointSlices)})
	}
	return resources
}

// clusterIPs of a Service. ClusterIPs is empty on objects that the API server has not defaulted.
func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	if svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return nil
}

// portEndpoints collects the endpoints of one Service port, which a slice names by the port's name and protocol.
func portEndpoints(port *corev1.ServicePort, endpointSlices []*discoveryv1.EndpointSlice) []*config.Endpoint {
	var endpoints []*config.Endpoint
	for _, slice := range endpointSlices {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, p := range slice.Ports {
			if p.Port == nil || value(p.Name) != port.Name || protocolOf(p) != protocolOr(port.Protocol) {
				continue
			}
			for i := range slice.Endpoints {
				endpoints = appendEndpoint(endpoints, &slice.Endpoints[i], uint32(*p.Port))
			}
		}
	}
	slices.SortFunc(endpoints, func(a, b *config.Endpoint) int {
		return cmp.Or(cmp.Compare(a.GetAddress(), b.GetAddress()), cmp.Compare(a.GetPort(), b.GetPort()))
	})
	// While a pod moves between slices it can stand in two of them.
	return slices.CompactFunc(endpoints, func(a, b *config.Endpoint) bool {
		return a.GetAddress() == b.GetAddress() && a.GetPort() == b.GetPort()
	})
}

func appendEndpoint(endpoints []*config.Endpoint, ep *discoveryv1.Endpoint, port uint32) []*config.Endpoint {
	terminating := value(ep.Conditions.Terminating)
	usable := isReady(ep) || terminating && value(ep.Conditions.Serving)
	if len(ep.Addresses) == 0 || !usable {
		return endpoints
	}
	result := &config.Endpoint{Address: ep.Addresses[0], Port: port, Draining: terminating && !isReady(ep)}
	if ref := ep.TargetRef; ref != nil && ref.Kind == "Pod" {
		result.Pod = ref.Namespace + "/" + ref.Name
	}
	return append(endpoints, result)
}

// isReady follows the rule of the API that an absent condition means ready.
func isReady(ep *discoveryv1.Endpoint) bool {
	return ep.Conditions.Ready == nil || *ep.Conditions.Ready
}

func headlessAddresses(endpointSlices []*discoveryv1.EndpointSlice) []*config.HeadlessAddress {
	var addresses []*config.HeadlessAddress
	for _, slice := range endpointSlices {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for i := range slice.Endpoints {
			if ep := &slice.Endpoints[i]; len(ep.Addresses) > 0 && isReady(ep) {
				addresses = append(addresses, &config.HeadlessAddress{Address: ep.Addresses[0], Hostname: value(ep.Hostname)})
			}
		}
	}
	slices.SortFunc(addresses, func(a, b *config.HeadlessAddress) int {
		return cmp.Or(cmp.Compare(a.GetAddress(), b.GetAddress()), cmp.Compare(a.GetHostname(), b.GetHostname()))
	})
	return slices.CompactFunc(addresses, func(a, b *config.HeadlessAddress) bool {
		return a.GetAddress() == b.GetAddress() && a.GetHostname() == b.GetHostname()
	})
}

// headlessPorts are the ports of the endpoints themselves: SRV records of a headless Service name what a client dials.
func headlessPorts(endpointSlices []*discoveryv1.EndpointSlice) []*config.ServicePort {
	var ports []*config.ServicePort
	for _, slice := range endpointSlices {
		for _, p := range slice.Ports {
			if p.Port == nil || protocolOf(p) == corev1.ProtocolSCTP {
				continue
			}
			ports = append(ports, &config.ServicePort{
				Name: value(p.Name), Port: uint32(*p.Port), Udp: protocolOf(p) == corev1.ProtocolUDP,
			})
		}
	}
	slices.SortFunc(ports, func(a, b *config.ServicePort) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetPort(), b.GetPort()))
	})
	return slices.CompactFunc(ports, func(a, b *config.ServicePort) bool {
		return a.GetName() == b.GetName() && a.GetPort() == b.GetPort() && a.GetUdp() == b.GetUdp()
	})
}

func protocolOf(p discoveryv1.EndpointPort) corev1.Protocol { return protocolOr(value(p.Protocol)) }

func protocolOr(p corev1.Protocol) corev1.Protocol { return cmp.Or(p, corev1.ProtocolTCP) }

// value of an optional field, zero when absent.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
