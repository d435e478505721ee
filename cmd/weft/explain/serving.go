package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/serving/config"
)

// Reasons of conditions that begin with the object that has them.
const (
	reasonNotOwned  = "NotOwned"
	reasonNameTaken = "RevisionNameTaken"
)

// configMaps reads the configuration in force and returns a link for each map that is not, because it is wrong.
func (e *explainer) configMaps() []Link {
	good := maps.Clone(e.ConfigMaps)
	var links []Link
	for _, name := range slices.Sorted(maps.Keys(good)) {
		data := maps.Clone(good[name])
		delete(data, "_example")
		good[name] = data
		if err := config.Validate(name, data); err != nil {
			delete(good, name)
			message := strings.TrimPrefix(err.Error(), fmt.Sprintf("parsing config map %q: ", name))
			links = append(links, Link{
				Kind: "ConfigMap", Name: name, State: Broken, Says: "not in force: " + oneLine(message),
				Cause: fmt.Sprintf("config map %s/%s is not in force: %s", config.Namespace, name, oneLine(message)),
				Next:  []string{fmt.Sprintf("%s edit configmap %s -n %s", e.Kubectl, name, config.Namespace)},
			})
		}
	}
	snapshot, err := config.Parse(good, config.Domains{})
	if err != nil {
		snapshot = config.Default(config.Domains{})
	}
	e.config = snapshot
	return links
}

// unseen explains an object whose present generation no controller has looked at, or one that is being deleted.
func (e *explainer) unseen(l *Link, o client.Object, observed int64) bool {
	switch {
	case o.GetDeletionTimestamp() != nil:
		l.State, l.Since, l.Says = Waiting, o.GetDeletionTimestamp().Time, "is being deleted"
		l.Cause = fmt.Sprintf("%s %q is being deleted", strings.ToLower(l.Kind), l.Name)
		if f := o.GetFinalizers(); len(f) > 0 {
			l.Cause += ", and waits for the finalizer " + strings.Join(f, ", ")
		}
	case observed != o.GetGeneration():
		l.State, l.Says = Waiting, fmt.Sprintf("generation %d, of which %d has been looked at", o.GetGeneration(), observed)
		l.Cause = fmt.Sprintf("no controller has looked at generation %d of %s %q yet", o.GetGeneration(), strings.ToLower(l.Kind), l.Name)
		l.Next = []string{"is the control plane running? `weft status`"}
	default:
		return false
	}
	return true
}

func (e *explainer) service(s *servingv1.Service) Link {
	l := of("Service", s.Name, s.Status.GetCondition(servingv1.ServiceConditionReady), "ready")
	if e.unseen(&l, s, s.Status.ObservedGeneration) {
		return l
	}
	for _, kind := range []string{string(servingv1.ServiceConditionConfigurationsReady), string(servingv1.ServiceConditionRoutesReady)} {
		c := s.Status.GetCondition(apis.ConditionType(kind))
		switch c.GetReason() {
		case reasonNotOwned:
			if strings.Contains(c.GetMessage(), "placeholder") {
				continue // the Route says it, and what of
			}
			l.Cause = trimPeriod(c.GetMessage())
			l.Next = []string{fmt.Sprintf("delete or rename what has the name %q, or give the service another name", s.Name)}
		case reasonNameTaken:
			name := s.Spec.Template.Name
			l.Cause = fmt.Sprintf("the revision name %q in spec.template.metadata.name is taken by an older revision with another content", name)
			l.Next = []string{"choose another name in spec.template.metadata.name, or leave it out"}
		}
	}
	return l
}

func (e *explainer) configuration(c *servingv1.Configuration) Link {
	ready := c.Status.GetCondition(servingv1.ConfigurationConditionReady)
	well := fmt.Sprintf("latest created and ready is %s", c.Status.LatestReadyRevisionName)
	l := of("Configuration", c.Name, ready, well)
	if e.unseen(&l, c, c.Status.ObservedGeneration) {
		return l
	}
	const creation = "Revision creation failed with message: "
	created := c.Status.LatestCreatedRevisionName
	switch {
	case !ready.IsFalse():
	case strings.HasPrefix(ready.GetMessage(), creation):
		message := oneLine(strings.TrimPrefix(ready.GetMessage(), creation))
		l.Cause = "the revision cannot be created: " + trimPeriod(message)
		l.Next = []string{e.describe("configuration", c.Name)}
		if strings.Contains(message, "already exists") {
			l.Cause = fmt.Sprintf("the revision name %q in spec.template.metadata.name is taken by an older revision with another content", c.Spec.Template.Name)
			l.Next = []string{"choose another name in spec.template.metadata.name, or leave it out"}
		}
		if strings.Contains(message, "webhook") {
			l.Next = []string{"is the control plane running? `weft status`", e.describe("configuration", c.Name)}
		}
	case created != "" && !slices.ContainsFunc(e.All, func(r servingv1.Revision) bool { return r.Name == created }):
		l.Cause = fmt.Sprintf("revision %q, the latest, has been deleted", created)
		l.Next = []string{"change the template, so that a new revision is made"}
	}
	return l
}

func (e *explainer) mapping(m *servingv1beta1.DomainMapping) Link {
	l := of("DomainMapping", m.Name, m.Status.GetCondition(servingv1beta1.DomainMappingConditionReady), "")
	if e.unseen(&l, m, m.Status.ObservedGeneration) {
		return l
	}
	ref := m.Spec.Ref
	if l.State == OK {
		l.Says = fmt.Sprintf("%s leads to %s %s", m.Status.URL, strings.ToLower(ref.Kind), ref.Name)
		return l
	}
	claimed := m.Status.GetCondition(servingv1beta1.DomainMappingConditionDomainClaimed)
	resolved := m.Status.GetCondition(servingv1beta1.DomainMappingConditionReferenceResolved)
	ingress := m.Status.GetCondition(servingv1beta1.DomainMappingConditionIngressReady)
	certificate := m.Status.GetCondition(servingv1beta1.DomainMappingConditionCertificateProvisioned)
	switch {
	case claimed.IsFalse() && claimed.GetReason() == "DomainAlreadyClaimed":
		l.Cause = fmt.Sprintf("the domain %s cannot be used: %s", m.Name, trimPeriod(claimed.GetMessage()))
		l.Next = []string{e.Kubectl + " get domainmappings,clusterdomainclaims --all-namespaces"}
	case claimed.IsFalse():
		l.Cause = fmt.Sprintf("the domain %s is not claimed: %s", m.Name, oneLine(claimed.GetMessage()))
		l.Next = []string{
			fmt.Sprintf("create the ClusterDomainClaim %q with spec.namespace %q", m.Name, m.Namespace),
			fmt.Sprintf("or set autocreate-cluster-domain-claims in the config map config-network of %s", config.Namespace),
		}
	case resolved.IsFalse():
		l.Cause = fmt.Sprintf("the %s %q that the domain leads to cannot be used: %s", strings.ToLower(ref.Kind), ref.Name, oneLine(resolved.GetMessage()))
		l.Next = []string{fmt.Sprintf("%s get ksvc,route -n %s", e.Kubectl, m.Namespace), "correct spec.ref of the domainmapping"}
	case certificate.IsFalse():
		l.Cause = "there is no certificate: " + oneLine(certificate.GetMessage())
		l.Next = []string{e.describe("domainmapping", m.Name)}
	case ingress.IsFalse() || ingress.IsUnknown():
		l.Cause = e.ingressCause(&l, ingress, "the domain")
	}
	return l
}

func trimPeriod(s string) string { return strings.TrimSuffix(oneLine(s), ".") }
