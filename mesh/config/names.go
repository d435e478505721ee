package config

import (
	"strconv"

	"google.golang.org/protobuf/proto"
)

// Type URLs of the resources on the xDS transport.
const (
	ListenerType  = "type.googleapis.com/weft.mesh.v1.Listener"
	RouteType     = "type.googleapis.com/weft.mesh.v1.Route"
	BackendType   = "type.googleapis.com/weft.mesh.v1.Backend"
	EndpointsType = "type.googleapis.com/weft.mesh.v1.Endpoints"
	ServiceType   = "type.googleapis.com/weft.mesh.v1.Service"

	CertificateType = "type.googleapis.com/weft.mesh.v1.Certificate"
	AccessLogType   = "type.googleapis.com/weft.mesh.v1.AccessLog"
)

// Types lists the type URLs in the order in which a proxy must learn of them, so that what a resource names is there before it.
func Types() []string {
	return []string{EndpointsType, BackendType, CertificateType, RouteType, ServiceType, AccessLogType, ListenerType}
}

// Resource is any of the messages above.
type Resource interface {
	proto.Message
	GetName() string
}

// RequestLog is the name of the one AccessLog.
const RequestLog = "requests"

// RevisionBackend is the name of the Backend and Endpoints of a Knative revision.
func RevisionBackend(namespace, revision string) string {
	return "revision/" + namespace + "/" + revision
}

// ServiceBackend is the name of the Backend and Endpoints of one port of a Kubernetes Service.
func ServiceBackend(namespace, service string, port uint16, udp bool) string {
	transport := "/tcp"
	if udp {
		transport = "/udp"
	}
	return "service/" + namespace + "/" + service + "/" + strconv.Itoa(int(port)) + transport
}

// KnativeRoute is the name of the Route that a serving.knative.dev Route compiles to.
func KnativeRoute(namespace, name string) string {
	return "knative/" + namespace + "/" + name
}

// DomainMappingRoute is the name of the Route that a serving.knative.dev DomainMapping compiles to.
func DomainMappingRoute(namespace, name string) string {
	return "domainmapping/" + namespace + "/" + name
}

// SecretCertificate is the name of the Certificate that a Secret of type kubernetes.io/tls compiles to.
func SecretCertificate(namespace, secret string) string {
	return "secret/" + namespace + "/" + secret
}

// LocalCertificate is the name of the Certificate that the platform's own authority has issued for a DNS name.
func LocalCertificate(dnsName string) string {
	return "local/" + dnsName
}
