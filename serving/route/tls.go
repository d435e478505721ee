package route

import (
	"strconv"
	"strings"

	"knative.dev/networking/pkg/apis/networking"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/serving/config"
)

// Certificates provides the public hosts of routes with certificates. It learns of the hosts from the status of routes.
type Certificates interface {
	// LocalCertificate names the certificate for a host of a route in a namespace and says whether every proxy presents it: then the reason
	// is empty. Else reason and message are for a condition; with the reason CertificateNotReady it is on its way. It may be called
	// concurrently and must not block.
	LocalCertificate(namespace, host string) (name, reason, message string)
	// CertificateChanges delivers the routes for which the answer may have changed. It is called once.
	CertificateChanges() <-chan event.GenericEvent
}

// CertificateNotReady is the reason while a certificate is on its way.
const CertificateNotReady = "CertificateNotReady"

// ExternalTLS says whether the public hosts of an object with these annotations are to be reached by https. An annotation that is no
// boolean does not count.
func (s Settings) ExternalTLS(annotations map[string]string) bool {
	disabled, err := strconv.ParseBool(networking.GetDisableExternalDomainTLS(annotations))
	return s.Config.Network.ExternalDomainTLS && (err != nil || !disabled)
}

// HTTPAllowed says whether hosts whose certificate is missing may be reached without one.
func (s Settings) HTTPAllowed() bool { return s.Config.Network.HTTPProtocol == config.HTTPEnabled }

// certify gives the public URLs of a route the scheme by which they are reached and reports on the certificates behind them. before is
// the status so far.
func (r *Reconciler) certify(route *servingv1.Route, before *servingv1.RouteStatus, s Settings) {
	conditions := route.GetConditionSet().Manage(&route.Status)
	if !s.ExternalTLS(route.Annotations) {
		route.Status.MarkTLSNotEnabled(servingv1.ExternalDomainTLSNotEnabledMessage)
		return
	}
	urls := publicURLs(&route.Status, s)
	if len(urls) == 0 {
		route.Status.MarkTLSNotEnabled(servingv1.TLSNotEnabledForClusterLocalMessage)
		return
	}
	// A certificate that is renewed, or that a control plane that starts has not looked at yet, is no worse than it was.
	conditions.MarkTrue(servingv1.RouteConditionCertificateProvisioned)
	wasReady := Provisioned(before.GetCondition(servingv1.RouteConditionCertificateProvisioned), before.URL)
	failed := false
	for _, u := range urls {
		host := u.URL().Hostname()
		*u = *s.ExternalURL("https", host)
		name, reason, message := r.localCertificate(route.Namespace, host)
		switch {
		case reason == "", failed, reason == CertificateNotReady && wasReady:
		case reason == CertificateNotReady:
			conditions.MarkUnknown(servingv1.RouteConditionCertificateProvisioned, reason, "Certificate %s is not ready: %s", name, message)
		case s.HTTPAllowed():
			*u = *s.ExternalURL("http", host)
			conditions.MarkTrueWithReason(servingv1.RouteConditionCertificateProvisioned, "HTTPDowngrade",
				"Certificate %s is not ready downgrade HTTP: %s", name, message)
		default:
			failed = true
			conditions.MarkFalse(servingv1.RouteConditionCertificateProvisioned, reason, "Certificate %s fails to be provisioned: %s", name, message)
		}
	}
}

func (r *Reconciler) localCertificate(namespace, host string) (name, reason, message string) {
	if r.certificates == nil {
		return host, "CertificateProvisionFailed", "nothing provides certificates here"
	}
	return r.certificates.LocalCertificate(namespace, host)
}

// Provisioned says whether an object with this condition and URL was reached by https.
func Provisioned(c *apis.Condition, u *apis.URL) bool {
	return c.IsTrue() && c.GetReason() == "" && u != nil && u.Scheme == "https"
}

// publicURLs are those of a route that clients outside the cluster use.
func publicURLs(status *servingv1.RouteStatus, s Settings) []*apis.URL {
	var out []*apis.URL
	add := func(u *apis.URL) {
		if u != nil && !strings.HasSuffix(u.URL().Hostname(), "."+s.Config.Domain.ClusterLocal()) {
			out = append(out, u)
		}
	}
	add(status.URL)
	for i := range status.Traffic {
		add(status.Traffic[i].URL)
	}
	return out
}
