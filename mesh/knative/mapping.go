package knative

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/networking/pkg/http/header"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/mesh/config"
)

// mappedPort is the port of a Kubernetes Service that a mapping leads to.
const mappedPort = 80

// destination is what a mapping leads to.
type destination struct {
	// host is the name of the target in the cluster. If a Route has this host, the mapping takes over the Route's rules as they are at any
	// time: the same splits, activation included, and no second way through the proxy.
	host string
	// rules are those of a Kubernetes Service that no Route has to do with, nil if it cannot be mapped to.
	rules []*config.Rule
	// problem says why there are no rules, in words for the user.
	problem string
}

// compileMapping is the part of a mapping's compilation that does not look at Routes. The service is the Kubernetes Service that the
// reference names, nil if it names something else or nothing that exists.
func (c *Controller) compileMapping(mapping *servingv1beta1.DomainMapping, service *corev1.Service) *compiled {
	key := mappingKey(client.ObjectKeyFromObject(mapping))
	redirect, err := c.policy().redirectPort(mapping.Annotations)
	result := &compiled{
		key:     key,
		created: mapping.CreationTimestamp.Time,
		route: &config.Route{
			Name: config.DomainMappingRoute(mapping.Namespace, mapping.Name),
			VirtualHosts: []*config.VirtualHost{
				{Hosts: []string{mapping.Name}, Visibility: config.Visibility_EXTERNAL, HttpsRedirectPort: redirect},
			},
		},
		target: c.naming.target(mapping, service),
	}
	if err != nil {
		result.problem = err.Error()
	}
	return result
}

func (n Naming) target(mapping *servingv1beta1.DomainMapping, service *corev1.Service) *destination {
	ref := &mapping.Spec.Ref
	d := &destination{
		host:    ref.Name + "." + mapping.Namespace + n.clusterSuffix(),
		problem: fmt.Sprintf("%s %q has no traffic target yet", ref.Kind, ref.Name),
	}
	if service == nil {
		return d
	}
	switch port := findPort(service); {
	case service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.ClusterIP == corev1.ClusterIPNone:
		d.problem = fmt.Sprintf("Kubernetes Service %q has no cluster IP", ref.Name)
	case port == nil:
		d.problem = fmt.Sprintf("Kubernetes Service %q has no port %d", ref.Name, mappedPort)
	default:
		d.rules = []*config.Rule{{
			Splits: []*config.Split{{Backend: config.ServiceBackend(service.Namespace, service.Name, mappedPort, false), Weight: 100}},
			SetHeaders: []*config.Header{
				{Name: "Host", Value: d.host},
				{Name: header.OriginalHostKey, Value: mapping.Name},
			},
		}}
	}
	return d
}

func findPort(service *corev1.Service) *corev1.ServicePort {
	for i := range service.Spec.Ports {
		if port := &service.Spec.Ports[i]; port.Port == mappedPort && (port.Protocol == corev1.ProtocolTCP || port.Protocol == "") {
			return port
		}
	}
	return nil
}

func mappingKey(name types.NamespacedName) owner { return owner{kindMapping, name} }

// resolveMapping gives a mapping the rules of its target. A revision sees the mapped host as the request's, as it does behind upstream's
// queue proxy, which undoes the rewriting of its ingress; so nothing is rewritten on the way to one. The caller holds mu.
func (t *table) resolveMapping(c *compiled) (route *config.Route, conflict string) {
	route, conflict = t.own(c)
	if len(route.GetVirtualHosts()) == 0 {
		return route, conflict
	}
	rules := t.rules(c.target.host)
	if rules == nil {
		rules = c.target.rules
	}
	route = proto.CloneOf(route)
	if rules == nil {
		route.VirtualHosts = nil
		return route, conflict
	}
	route.VirtualHosts[0].Rules = rules
	return route, conflict
}

// rules are those of the Route that has a host, nil if none has. The caller holds mu.
func (t *table) rules(host string) []*config.Rule {
	var first *compiled
	for key, c := range t.claims[host] {
		if key.kind == kindRoute && (first == nil || c.before(first)) {
			first = c
		}
	}
	if first == nil {
		return nil
	}
	for _, vh := range first.route.GetVirtualHosts() {
		if slices.Contains(vh.GetHosts(), host) {
			return vh.GetRules()
		}
	}
	return nil
}

// followersOf lists the mappings that lead to a host.
func (t *table) followersOf(host string) []types.NamespacedName {
	t.mu.Lock()
	defer t.mu.Unlock()
	followers := make([]types.NamespacedName, 0, len(t.followers[host]))
	for key := range t.followers[host] {
		followers = append(followers, key.NamespacedName)
	}
	return followers
}
