package route

import (
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

// VisibilityLabel with the value serving.VisibilityClusterLocal on a route keeps all of it inside the cluster, and on the
// placeholder Service of a tag that tag.
const VisibilityLabel = "networking.knative.dev/visibility"

// ErrHost is wrapped by every error about a template that makes no valid host name.
var ErrHost = errors.New("domain name error")

// Hostname is the name of the placeholder Service of a tag, and the first label of its host. The tag "" is the route itself.
func (s Settings) Hostname(route, tag string) (string, error) {
	name, err := s.Config.Network.TagName(route, tag)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrHost, err)
	}
	return name, nil
}

// LocalHost is the host of a tag inside the cluster. No domain template applies: it is the name of a Kubernetes Service.
func (s Settings) LocalHost(r *servingv1.Route, tag string) (string, error) {
	hostname, err := s.Hostname(r.Name, tag)
	return hostname + "." + r.Namespace + "." + s.Config.Domain.ClusterLocal(), err
}

// PublicHost is the host of a tag outside the cluster.
func (s Settings) PublicHost(r *servingv1.Route, tag string) (string, error) {
	hostname, err := s.Hostname(r.Name, tag)
	if err != nil {
		return "", err
	}
	host, err := s.Config.Network.Host(config.HostValues{
		Name: hostname, Namespace: r.Namespace, Domain: s.Config.Domain.Of(r.Labels), Annotations: r.Annotations, Labels: r.Labels,
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrHost, err)
	}
	if problems := validation.IsFullyQualifiedDomainName(field.NewPath("url"), host); len(problems) > 0 {
		return "", fmt.Errorf("%w: invalid domain name %q: %w", ErrHost, host, problems.ToAggregate())
	}
	return host, nil
}

// URL is where a tag of the route can be reached: from outside, or from the cluster when it is local.
func (s Settings) URL(r *servingv1.Route, tag string, local bool) (*apis.URL, error) {
	if local {
		host, err := s.LocalHost(r, tag)
		return apis.HTTP(host), err
	}
	host, err := s.PublicHost(r, tag)
	if err != nil {
		return nil, err
	}
	return s.ExternalURL(s.Config.Network.ExternalScheme, host), nil
}

// ExternalURL is the URL of a host at the gateway.
func (s Settings) ExternalURL(scheme, host string) *apis.URL {
	port, standard := s.Port, 80
	if scheme == "https" {
		port, standard = s.HTTPSPort, 443
	}
	if port != 0 && port != standard {
		host += ":" + strconv.Itoa(port)
	}
	return &apis.URL{Scheme: scheme, Host: host}
}

// Local says whether a tag of the route is local to the cluster. placeholders are the route's Services by name.
func (s Settings) Local(r *servingv1.Route, tag string, placeholders map[string]*corev1.Service) (bool, error) {
	// The visibility label of the route itself leads to this domain too.
	if s.Config.Domain.Of(r.Labels) == s.Config.Domain.ClusterLocal() {
		return true, nil
	}
	hostname, err := s.Hostname(r.Name, tag)
	if err != nil {
		return false, err
	}
	placeholder, ok := placeholders[hostname]
	return ok && placeholder.Labels[VisibilityLabel] == serving.VisibilityClusterLocal, nil
}
