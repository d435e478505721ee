package config

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/template"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// NetworkName is the name of the config map of routing.
const NetworkName = "config-network"

// HTTPProtocol says what becomes of plain HTTP at the gateway.
type HTTPProtocol string

// What an administrator may choose for plain HTTP.
const (
	HTTPEnabled    HTTPProtocol = "enabled"
	HTTPDisabled   HTTPProtocol = "disabled"
	HTTPRedirected HTTPProtocol = "redirected"
)

// Network configures hosts, TLS and rollouts of Routes.
type Network struct {
	// IngressClass and CertificateClass name the controllers of upstream's Ingress and Certificate objects. Those are not made here,
	// and nobody else could serve a Route, so every Route is served whatever class it, or this, names.
	IngressClass     string
	CertificateClass string
	// ExternalDomainTLS, ClusterLocalDomainTLS and SystemInternalTLS switch TLS on for public hosts, for cluster-local hosts, and
	// between the parts of the platform.
	ExternalDomainTLS     bool
	ClusterLocalDomainTLS bool
	SystemInternalTLS     bool
	HTTPProtocol          HTTPProtocol
	// ExternalScheme is the scheme of public URLs without TLS.
	ExternalScheme string
	// RolloutSeconds is how long traffic takes to move to a new latest revision; 0 moves it at once.
	RolloutSeconds int64
	// AutocreateClusterDomainClaims lets a DomainMapping claim its domain by itself.
	AutocreateClusterDomainClaims bool
	// MeshPodAddressability and MeshCompatibility are upstream's switches for foreign meshes; they are validated only.
	MeshPodAddressability bool
	MeshCompatibility     string
	// NamespaceWildcardCerts selects the namespaces that get one wildcard certificate; nil selects none.
	NamespaceWildcardCerts *metav1.LabelSelector

	domainTemplate, tagTemplate *template.Template
}

// HostValues are what the domain template may use.
type HostValues struct {
	Name, Namespace, Domain string
	Annotations, Labels     map[string]string
}

// tagValues are what the tag template may use.
type tagValues struct{ Name, Tag string }

const (
	defaultDomainTemplate = "{{.Name}}.{{.Namespace}}.{{.Domain}}"
	defaultTagTemplate    = "{{.Tag}}-{{.Name}}"
)

func parseNetwork(data map[string]string) (*Network, error) {
	v := &values{data: data}
	n := &Network{
		IngressClass:     "istio.ingress.networking.knative.dev",
		CertificateClass: "cert-manager.certificate.networking.knative.dev",
		HTTPProtocol:     HTTPEnabled, ExternalScheme: "http", MeshCompatibility: "auto",
	}
	domain, tag := defaultDomainTemplate, defaultTagTemplate
	v.text(&n.IngressClass, "ingress.class", "ingress-class")
	v.text(&n.CertificateClass, "certificate.class", "certificate-class")
	v.text(&domain, "domainTemplate", "domain-template")
	v.text(&tag, "tagTemplate", "tag-template")
	v.int64(&n.RolloutSeconds, "rolloutDuration", "rollout-duration")
	v.bool(&n.AutocreateClusterDomainClaims, "autocreateClusterDomainClaims", "autocreate-cluster-domain-claims")
	v.bool(&n.MeshPodAddressability, "enable-mesh-pod-addressability")
	v.text(&n.ExternalScheme, "defaultExternalScheme", "default-external-scheme")
	v.read([]string{"mesh-compatibility-mode"}, func(raw string) error {
		// An unknown mode leaves the default, as it does upstream.
		if mode := strings.ToLower(raw); mode == "auto" || mode == "enabled" || mode == "disabled" {
			n.MeshCompatibility = mode
		}
		return nil
	})
	v.read([]string{"namespace-wildcard-cert-selector"}, func(raw string) error {
		return yaml.Unmarshal([]byte(raw), &n.NamespaceWildcardCerts)
	})
	n.parseTLS(v)
	v.check(n.RolloutSeconds >= 0, "rollout-duration must be a positive integer, but was %d", n.RolloutSeconds)
	n.parseTemplates(v, domain, tag)
	return n, v.err()
}

func (n *Network) parseTLS(v *values) {
	// Whatever is not "enabled" disables external TLS, and the newest spelling decides.
	v.read([]string{"autoTLS", "auto-tls", "external-domain-tls"}, func(raw string) error {
		n.ExternalDomainTLS = strings.EqualFold(raw, "enabled")
		return nil
	})
	v.bool(&n.SystemInternalTLS, "internal-encryption")
	v.read([]string{"system-internal-tls"}, enabledOrDisabled(&n.SystemInternalTLS))
	v.read([]string{"cluster-local-domain-tls"}, enabledOrDisabled(&n.ClusterLocalDomainTLS))
	// Only what the newest spelling says counts, so an older one may say anything.
	protocol := ""
	v.text(&protocol, "httpProtocol", "http-protocol")
	switch p := HTTPProtocol(strings.ToLower(protocol)); p {
	case "":
	case HTTPEnabled, HTTPDisabled, HTTPRedirected:
		n.HTTPProtocol = p
	default:
		v.reject("httpProtocol %s in config-network ConfigMap is not supported", protocol)
	}
}

func enabledOrDisabled(target *bool) func(raw string) error {
	return func(raw string) error {
		switch strings.ToLower(raw) {
		case "":
		case "disabled":
			// The older key may have enabled it already, and then wins.
		case "enabled":
			*target = true
		default:
			return fmt.Errorf("value: %q in config-network ConfigMap is not supported", raw)
		}
		return nil
	}
}

// parseTemplates tries both templates on an example, so that what a Route gets later cannot fail.
func (n *Network) parseTemplates(v *values, domain, tag string) {
	var err error
	if n.domainTemplate, err = template.New("domain-template").Parse(domain); err != nil {
		v.reject("parsing %q: %w", "domain-template", err)
	} else if err := n.tryDomain(); err != nil {
		v.reject("trying %q: %w", "domain-template", err)
	}
	if n.tagTemplate, err = template.New("tag-template").Parse(tag); err != nil {
		v.reject("parsing %q: %w", "tag-template", err)
	} else if err := n.tagTemplate.Execute(io.Discard, tagValues{Name: "foo", Tag: "v2"}); err != nil {
		v.reject("trying %q: %w", "tag-template", err)
	}
}

func (n *Network) tryDomain() error {
	host, err := n.Host(HostValues{Name: "foo", Namespace: "bar", Domain: "baz.com"})
	if err != nil {
		return err
	}
	u, err := url.Parse("https://" + host)
	switch {
	case err != nil:
		return err
	case u.Hostname() == "":
		return errors.New("empty hostname")
	case u.RequestURI() != "/":
		return fmt.Errorf("domain template has url path: %s", u.RequestURI())
	}
	return nil
}

// Host is the public host that the domain template makes. A template can fail on labels or annotations that an object lacks.
func (n *Network) Host(values HostValues) (string, error) {
	var b strings.Builder
	if err := n.domainTemplate.Execute(&b, values); err != nil {
		return "", fmt.Errorf("making the host of %s/%s: %w", values.Namespace, values.Name, err)
	}
	return b.String(), nil
}

// TagName is the name under which the tag template publishes a tag of a Route; without a tag it is the Route's own.
func (n *Network) TagName(name, tag string) (string, error) {
	if tag == "" {
		return name, nil
	}
	var b strings.Builder
	if err := n.tagTemplate.Execute(&b, tagValues{Name: name, Tag: tag}); err != nil {
		return "", fmt.Errorf("making the name of tag %q of %s: %w", tag, name, err)
	}
	return b.String(), nil
}
