package config

import (
	"knative.dev/networking/pkg/apis/networking"
	"knative.dev/serving/pkg/apis/serving"
	"sigs.k8s.io/yaml"
)

// DomainName is the name of the config map of the domains.
const DomainName = "config-domain"

// Domain gives each Route the domain under which it is reached from outside.
type Domain struct {
	// ClusterDomain is the DNS suffix of the cluster, "cluster.local".
	ClusterDomain string
	domains       map[string]labelSelector
}

// parseDomain reads a map whose keys are domains. fallback is the domain of Routes that no entry selects; it is used only when
// no entry selects all.
func parseDomain(data map[string]string, fallback, clusterDomain string) (*Domain, error) {
	d, v := &Domain{ClusterDomain: clusterDomain, domains: map[string]labelSelector{}}, &values{data: data}
	catchAll := false
	for domain := range data {
		if domain == exampleKey {
			continue
		}
		var selector labelSelector
		v.read([]string{domain}, func(raw string) error { return yaml.Unmarshal([]byte(raw), &selector) })
		catchAll = catchAll || len(selector.Selector) == 0
		d.domains[domain] = selector
	}
	if !catchAll {
		d.domains[fallback] = labelSelector{}
	}
	return d, v.err()
}

// ClusterLocal is the domain of Routes that are reached only from within.
func (d *Domain) ClusterLocal() string { return "svc." + d.ClusterDomain }

// Of is the domain of a Route with these labels: the cluster-local one when the visibility label says so, else that with the most
// specific matching selector, and the first by name among equals.
func (d *Domain) Of(labels map[string]string) string {
	if labels[networking.VisibilityLabelKey] == serving.VisibilityClusterLocal {
		return d.ClusterLocal()
	}
	return mostSpecific(d.domains, labels)
}
