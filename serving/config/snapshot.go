package config

import (
	"context"
	"fmt"
	"slices"

	apiconfig "knative.dev/serving/pkg/apis/config"
)

// Names of the config maps whose content is parsed by the published packages of Knative.
const (
	DefaultsName = apiconfig.DefaultsConfigName
	FeaturesName = apiconfig.FeaturesConfigName
)

// Names lists the config maps that make a Snapshot.
func Names() []string {
	return []string{
		AutoscalerName, DefaultsName, DeploymentName, DomainName, FeaturesName, GCName, NetworkName, ObservabilityName,
	}
}

// Snapshot is the whole configuration at one moment. It and all that it points to are immutable.
type Snapshot struct {
	Autoscaler    *Autoscaler
	Defaults      *apiconfig.Defaults
	Deployment    *Deployment
	Domain        *Domain
	Features      *apiconfig.Features
	GC            *GC
	Network       *Network
	Observability *Observability

	// types is what the defaulting and validation of Knative's types read.
	types *apiconfig.Config
}

// Domains are what the installation, not the administrator, knows about names.
type Domains struct {
	// Default is the domain of Routes when config-domain has no entry for all; "svc.<Cluster>" by default, as upstream.
	Default string
	// Cluster is the DNS suffix of the cluster, "cluster.local" by default.
	Cluster string
}

func (d Domains) withDefaults() Domains {
	if d.Cluster == "" {
		d.Cluster = "cluster.local"
	}
	if d.Default == "" {
		d.Default = "svc." + d.Cluster
	}
	return d
}

// Default is the configuration when no config map exists.
func Default(domains Domains) *Snapshot {
	s, err := Parse(nil, domains)
	if err != nil {
		panic(fmt.Sprintf("the defaults do not parse: %v", err))
	}
	return s
}

// Parse makes a Snapshot of the data of the named maps; those that are missing have their defaults. The error names the map.
func Parse(maps map[string]map[string]string, domains Domains) (*Snapshot, error) {
	s := &Snapshot{}
	for _, name := range Names() {
		next, err := s.with(name, maps[name], domains)
		if err != nil {
			return nil, err
		}
		s = next
	}
	return s, nil
}

// Known tells whether a config map of this name is Knative's.
func Known(name string) bool {
	return slices.Contains(Names(), name) || slices.Contains(acceptedNames(), name)
}

// Validate reports what is wrong with the data of one map; maps that are not Knative's are always fine.
func Validate(name string, data map[string]string) error {
	if err := checkAccepted(name, data); err != nil {
		return fmt.Errorf("parsing config map %q: %w", name, err)
	}
	_, err := (&Snapshot{}).with(name, data, Domains{})
	return err
}

// with is a copy of s with the part of one map replaced.
func (s *Snapshot) with(name string, data map[string]string, domains Domains) (*Snapshot, error) {
	next, domains := *s, domains.withDefaults()
	var err error
	switch name {
	case AutoscalerName:
		next.Autoscaler, err = parseAutoscaler(data)
	case DefaultsName:
		next.Defaults, err = apiconfig.NewDefaultsConfigFromMap(data)
	case DeploymentName:
		next.Deployment, err = parseDeployment(data)
	case DomainName:
		next.Domain, err = parseDomain(data, domains.Default, domains.Cluster)
	case FeaturesName:
		next.Features, err = apiconfig.NewFeaturesConfigFromMap(data)
	case GCName:
		next.GC, err = parseGC(data)
	case NetworkName:
		next.Network, err = parseNetwork(data)
	case ObservabilityName:
		next.Observability, err = parseObservability(data)
	}
	if err != nil {
		return nil, fmt.Errorf("parsing config map %q: %w", name, err)
	}
	if next.Autoscaler != nil && next.Defaults != nil && next.Features != nil {
		next.types = &apiconfig.Config{Defaults: next.Defaults, Features: next.Features}
		next.Autoscaler.apply(next.types)
	}
	return &next, nil
}

// ToContext gives ctx what the defaulting and validation of Knative's types read from it.
func (s *Snapshot) ToContext(ctx context.Context) context.Context {
	return apiconfig.ToContext(ctx, s.types)
}
