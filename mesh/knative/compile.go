package knative

import (
	"net"
	"strings"

	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/mesh/config"
)

// Naming decides the names by which pods reach a Route.
type Naming struct {
	// ClusterDomain is the suffix of Service names in DNS, "cluster.local" when empty.
	ClusterDomain string
	// TagName gives the Service name under which a tag of a Route is known in the cluster: "<tag>-<route>" when nil. It may be called
	// concurrently. An error leaves the tag without a name in the cluster.
	TagName func(route, tag string) (string, error)
}

func (n Naming) clusterSuffix() string {
	if n.ClusterDomain == "" {
		return ".svc.cluster.local"
	}
	return ".svc." + n.ClusterDomain
}

func (n Naming) tagName(route, tag string) string {
	if n.TagName == nil {
		return tag + "-" + route
	}
	name, err := n.TagName(route, tag)
	if err != nil {
		return ""
	}
	return name
}

// Compile turns the status of a Route into virtual hosts: what its url and the urls of its tags promise, and the names of the same in
// the cluster. It reads the status only, because there the reconciler of the Route has resolved what the spec asks for to
// revisions that are ready. A Route whose status is not filled yet compiles to no virtual host.
func Compile(route *servingv1.Route, naming Naming) *config.Route {
	compiled := &config.Route{Name: config.KnativeRoute(route.Namespace, route.Name)}
	traffic := route.Status.Traffic
	if splits := shares(route.Namespace, traffic); len(splits) > 0 {
		compiled.VirtualHosts = append(compiled.VirtualHosts,
			naming.virtualHosts(route.Namespace, route.Name, route.Status.URL.URL().Host, splits)...)
	}
	seen := make(map[string]bool)
	for i := range traffic {
		target := &traffic[i]
		if target.Tag == "" || target.RevisionName == "" || seen[target.Tag] {
			continue
		}
		seen[target.Tag] = true
		whole := []*config.Split{{Backend: config.RevisionBackend(route.Namespace, target.RevisionName), Weight: 100}}
		compiled.VirtualHosts = append(compiled.VirtualHosts,
			naming.virtualHosts(route.Namespace, naming.tagName(route.Name, target.Tag), target.URL.URL().Host, whole)...)
	}
	return compiled
}

// shares sums the percentages per revision, in the order in which the revisions appear. Targets without a share, as those that exist
// for their tag only, are left out.
func shares(namespace string, traffic []servingv1.TrafficTarget) []*config.Split {
	var splits []*config.Split
	index := make(map[string]int)
	for i := range traffic {
		target := &traffic[i]
		if target.Percent == nil || *target.Percent <= 0 || target.RevisionName == "" {
			continue
		}
		weight := uint32(min(*target.Percent, 100))
		if at, ok := index[target.RevisionName]; ok {
			splits[at].Weight += weight
			continue
		}
		index[target.RevisionName] = len(splits)
		splits = append(splits, &config.Split{Backend: config.RevisionBackend(namespace, target.RevisionName), Weight: weight})
	}
	return splits
}

// virtualHosts gives the same splits to the public host, unless the url is one of the cluster already, and to the names in the cluster.
func (n Naming) virtualHosts(namespace, service, urlHost string, splits []*config.Split) []*config.VirtualHost {
	rules := []*config.Rule{{Splits: splits}}
	var hosts []*config.VirtualHost
	if public := hostname(urlHost); public != "" && !strings.HasSuffix(public, n.clusterSuffix()) {
		hosts = append(hosts, &config.VirtualHost{Hosts: []string{public}, Visibility: config.Visibility_EXTERNAL, Rules: rules})
	}
	if service == "" {
		return hosts
	}
	short := service + "." + namespace
	return append(hosts, &config.VirtualHost{
		Hosts:      []string{short, short + ".svc", short + n.clusterSuffix()},
		Visibility: config.Visibility_CLUSTER_LOCAL,
		Rules:      rules,
	})
}

// hostname is the host of a URL as virtual hosts are keyed: in lower case and without a port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(host)
}
