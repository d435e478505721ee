package knative

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"knative.dev/networking/pkg/apis/networking"
	"knative.dev/networking/pkg/http/header"
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

// Policy is what an administrator decides about all Routes. It is read anew for each compilation.
type Policy struct {
	// TagHeaders lets a request choose a tag by the header Knative-Serving-Tag, and tells instances how a request came to them.
	TagHeaders bool
	// RedirectHTTP answers plain requests to external hosts with a redirection to https, unless a Route's annotation says otherwise.
	RedirectHTTP bool
	// HTTPSPort is that of the gateway as clients know it, 443 when zero.
	HTTPSPort uint32
}

// defaultHTTPSPort is that of https URLs without one.
const defaultHTTPSPort = 443

// Values of the http-protocol annotation, which is read in lower case.
const (
	httpEnabled    = "enabled"
	httpRedirected = "redirected"
)

// redirectPort is the port of HTTPS if plain requests are to be redirected to it, or zero. Annotations are those of a Route or
// DomainMapping; what they say is an error when it means nothing, and the administrator's choice stands. Whether there is a
// certificate does not matter: upstream redirects without one too, so that nothing is served in plain text by mistake.
func (p Policy) redirectPort(annotations map[string]string) (port uint32, err error) {
	redirect := p.RedirectHTTP
	switch value := strings.ToLower(networking.GetHTTPProtocol(annotations)); value {
	case "":
	case httpEnabled:
		redirect = false
	case httpRedirected:
		redirect = true
	default:
		err = fmt.Errorf("incorrect http-protocol annotation: %s", value)
	}
	switch {
	case !redirect:
		return 0, err
	case p.HTTPSPort == 0:
		return defaultHTTPSPort, err
	}
	return p.HTTPSPort, err
}

// Compile turns a Route into virtual hosts: what the url of its status and the urls of its tags promise, and the names of the same in
// the cluster. Where the traffic goes it reads from the status only, because there the reconciler of the Route has resolved what the
// spec asks for to revisions that are ready. A Route whose status is not filled yet compiles to no virtual host.
func Compile(route *servingv1.Route, naming Naming, policy Policy) *config.Route {
	redirect, _ := policy.redirectPort(route.Annotations)
	compiled := &config.Route{Name: config.KnativeRoute(route.Namespace, route.Name)}
	tags := tagged(route)
	if splits := shares(route.Namespace, route.Status.Traffic); len(splits) > 0 {
		compiled.VirtualHosts = append(compiled.VirtualHosts,
			naming.virtualHosts(route.Namespace, route.Name, route.Status.URL.URL().Host, redirect, mainRules(splits, tags, policy))...)
	}
	for _, t := range tags {
		rule := &config.Rule{Splits: t.splits}
		if policy.TagHeaders {
			// As if it had been chosen by the header: instances see the same either way.
			rule.SetHeaders = []*config.Header{{Name: header.RouteTagKey, Value: t.name}}
		}
		compiled.VirtualHosts = append(compiled.VirtualHosts,
			naming.virtualHosts(route.Namespace, naming.tagName(route.Name, t.name), t.host, redirect, []*config.Rule{rule})...)
	}
	return compiled
}

// mainRules are those of the Route's own hosts.
func mainRules(splits []*config.Split, tags []tag, policy Policy) []*config.Rule {
	if !policy.TagHeaders {
		return []*config.Rule{{Splits: splits}}
	}
	rules := make([]*config.Rule, 0, len(tags)+1)
	for _, t := range tags {
		rules = append(rules, &config.Rule{
			Match:  &config.Match{Headers: []*config.Header{{Name: header.RouteTagKey, Value: t.name}}},
			Splits: t.splits,
		})
	}
	// With a tag that the Route does not have, too. Instances can tell by the two headers together.
	return append(rules, &config.Rule{
		Splits:     splits,
		SetHeaders: []*config.Header{{Name: header.DefaultRouteKey, Value: "true"}},
	})
}

// tag is one of a Route's, resolved.
type tag struct {
	name string
	// host of its url, maybe with a port.
	host   string
	splits []*config.Split
}

// tagged lists the tags of a Route in the order in which they appear. While a tag follows the latest revision gradually, the status
// names its revisions, the newest last, and an annotation how its requests are divided among them.
func tagged(route *servingv1.Route) []tag {
	var tags []tag
	index := make(map[string]int)
	for i := range route.Status.Traffic {
		target := &route.Status.Traffic[i]
		if target.Tag == "" || target.RevisionName == "" {
			continue
		}
		at, ok := index[target.Tag]
		if !ok {
			at = len(tags)
			index[target.Tag] = at
			tags = append(tags, tag{name: target.Tag})
		}
		tags[at].host = target.URL.URL().Host
		tags[at].splits = []*config.Split{{Backend: config.RevisionBackend(route.Namespace, target.RevisionName), Weight: 100}}
	}
	rolling := rollingTags(route)
	for i := range tags {
		if splits := shares(route.Namespace, rolling[tags[i].name]); len(splits) > 0 {
			tags[i].splits = splits
		}
	}
	return tags
}

// rolloutAnnotation is the one in which the reconciler of Routes keeps how far the rollouts of tags are.
const rolloutAnnotation = "networking.internal.knative.dev/rollout"

// rollingTags reads how the requests to tags are divided during their rollouts.
func rollingTags(route *servingv1.Route) map[string][]servingv1.TrafficTarget {
	var rollouts struct {
		Tags map[string]struct {
			Revisions []servingv1.TrafficTarget `json:"revisions"`
		} `json:"tags"`
	}
	if json.Unmarshal([]byte(route.Status.Annotations[rolloutAnnotation]), &rollouts) != nil {
		return nil
	}
	out := make(map[string][]servingv1.TrafficTarget, len(rollouts.Tags))
	for name, t := range rollouts.Tags {
		out[name] = t.Revisions
	}
	return out
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

// virtualHosts gives the same rules to the public host, unless the url is one of the cluster already, and to the names in the cluster.
// Only the public host redirects.
func (n Naming) virtualHosts(namespace, service, urlHost string, redirect uint32, rules []*config.Rule) []*config.VirtualHost {
	var hosts []*config.VirtualHost
	if public := hostname(urlHost); public != "" && !strings.HasSuffix(public, n.clusterSuffix()) {
		hosts = append(hosts, &config.VirtualHost{Hosts: []string{public}, Visibility: config.Visibility_EXTERNAL, Rules: rules, HttpsRedirectPort: redirect})
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
