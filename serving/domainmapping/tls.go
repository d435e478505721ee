package domainmapping

import (
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/serving/route"
)

// Certificates provides mapped domains with certificates. It learns of them from the API.
type Certificates interface {
	// LocalCertificate is as in route.Certificates.
	LocalCertificate(namespace, host string) (name, reason, message string)
	// SecretCertificate is the same for the certificate in a Secret of a namespace.
	SecretCertificate(namespace, secret, host string) (name, reason, message string)
	// MappingCertificateChanges delivers the mappings for which an answer may have changed. It is called once.
	MappingCertificateChanges() <-chan event.GenericEvent
}

// certify reports on the certificate of the domain. before is the status so far.
func (r *Reconciler) certify(mapping *servingv1beta1.DomainMapping, before *servingv1beta1.DomainMappingStatus, s route.Settings) {
	switch {
	case mapping.Spec.TLS != nil:
		r.certifySecret(mapping, before)
	case s.ExternalTLS(mapping.Annotations):
		r.certifyLocal(mapping, before, s)
	default:
		mapping.Status.MarkTLSNotEnabled(servingv1beta1.ExternalDomainTLSNotEnabledMessage)
	}
}

// certifySecret is for a certificate that the user provides. Upstream takes it on trust; here a Secret of no use is reported.
func (r *Reconciler) certifySecret(mapping *servingv1beta1.DomainMapping, before *servingv1beta1.DomainMappingStatus) {
	mapping.Status.MarkCertificateNotRequired(servingv1beta1.TLSCertificateProvidedExternally)
	if r.certificates == nil {
		return
	}
	_, reason, message := r.certificates.SecretCertificate(mapping.Namespace, mapping.Spec.TLS.SecretName, mapping.Name)
	conditions := mapping.GetConditionSet().Manage(&mapping.Status)
	switch was := before.GetCondition(servingv1beta1.DomainMappingConditionCertificateProvisioned); {
	case reason == "":
	case reason != route.CertificateNotReady:
		conditions.MarkFalse(servingv1beta1.DomainMappingConditionCertificateProvisioned, reason, "%s", message)
	case !was.IsTrue() || was.GetReason() != "CertificateExternallyProvided":
		conditions.MarkUnknown(servingv1beta1.DomainMappingConditionCertificateProvisioned, reason, "%s", message)
	}
}

// certifyLocal is for a domain that the platform's own authority may answer for.
func (r *Reconciler) certifyLocal(mapping *servingv1beta1.DomainMapping, before *servingv1beta1.DomainMappingStatus, s route.Settings) {
	name, reason, message := mapping.Name, "CertificateProvisionFailed", "nothing provides certificates here"
	if r.certificates != nil {
		name, reason, message = r.certificates.LocalCertificate(mapping.Namespace, mapping.Name)
	}
	const condition = servingv1beta1.DomainMappingConditionCertificateProvisioned
	conditions := mapping.GetConditionSet().Manage(&mapping.Status)
	switch {
	case reason == "", reason == route.CertificateNotReady && route.Provisioned(before.GetCondition(condition), before.URL):
		conditions.MarkTrue(condition)
	case reason == route.CertificateNotReady:
		conditions.MarkUnknown(condition, reason, "Certificate %s is not ready: %s", name, message)
	case s.HTTPAllowed():
		reachBy(mapping, s, "http")
		conditions.MarkTrueWithReason(condition, "HTTPDowngrade", "Certificate %s is not ready downgrade HTTP: %s", name, message)
	default:
		conditions.MarkFalse(condition, reason, "Certificate %s fails to be provisioned: %s", name, message)
	}
}
