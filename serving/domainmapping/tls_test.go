package domainmapping

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/route"
)

// answer is what a provider of certificates says of all of them: a reason.
type answer string

func (a answer) LocalCertificate(_, host string) (name, reason, message string) {
	return "local/" + host, string(a), "because"
}

func (a answer) SecretCertificate(namespace, secret, _ string) (name, reason, message string) {
	return "secret/" + namespace + "/" + secret, string(a), "because"
}

func (answer) MappingCertificateChanges() <-chan event.GenericEvent { return nil }

func TestCertify(t *testing.T) {
	t.Parallel()
	const (
		off, on, strict = "", "Enabled", "Redirected"
		secret          = "mine"
	)
	for _, tc := range []struct {
		name, tls, secret string
		answer            answer
		// was is the reason of the condition when it has been true before, over https.
		was             *string
		url, wantOfCert string
	}{
		{name: "off", tls: off, url: "http://www.example.com:8080", wantOfCert: "True TLSNotEnabled external-domain-tls is not enabled"},
		{name: "local", tls: on, url: "https://www.example.com:8443", wantOfCert: "True  "},
		{
			name: "local, on its way", tls: on, answer: "CertificateNotReady", url: "https://www.example.com:8443",
			wantOfCert: "Unknown CertificateNotReady Certificate local/www.example.com is not ready: because",
		},
		{name: "local, renewed", tls: on, answer: "CertificateNotReady", was: new(""), url: "https://www.example.com:8443", wantOfCert: "True  "},
		{
			name: "local, foreign domain", tls: on, answer: "CertificateProvisionFailed", url: "http://www.example.com:8080",
			wantOfCert: "True HTTPDowngrade Certificate local/www.example.com is not ready downgrade HTTP: because",
		},
		{
			name: "local, foreign domain, no http", tls: strict, answer: "CertificateProvisionFailed", url: "https://www.example.com:8443",
			wantOfCert: "False CertificateProvisionFailed Certificate local/www.example.com fails to be provisioned: because",
		},
		{
			name: "secret", tls: off, secret: secret, url: "https://www.example.com:8443",
			wantOfCert: "True CertificateExternallyProvided TLS certificate was provided externally",
		},
		{name: "secret missing", tls: off, secret: secret, answer: "SecretNotFound", url: "https://www.example.com:8443", wantOfCert: "False SecretNotFound because"},
		{
			name: "secret, on its way", tls: on, secret: secret, answer: "CertificateNotReady", url: "https://www.example.com:8443",
			wantOfCert: "Unknown CertificateNotReady because",
		},
		{
			name: "secret, renewed", tls: on, secret: secret, answer: "CertificateNotReady", was: new("CertificateExternallyProvided"),
			url: "https://www.example.com:8443", wantOfCert: "True CertificateExternallyProvided TLS certificate was provided externally",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			network := map[string]string{"external-domain-tls": tc.tls}
			if tc.tls == strict {
				network = map[string]string{"external-domain-tls": on, "http-protocol": strict}
			}
			snapshot, err := config.Parse(map[string]map[string]string{config.NetworkName: network}, config.Domains{Default: "localhost"})
			if err != nil {
				t.Fatal(err)
			}
			s := route.Settings{Config: snapshot, Port: 8080, HTTPSPort: 8443}
			mapping := newMapping("default", knativeService("hello"))
			if tc.secret != "" {
				mapping.Spec.TLS = &servingv1beta1.SecretTLS{SecretName: tc.secret}
			}
			mapping.Status.InitializeConditions()
			before := mapping.Status.DeepCopy()
			if tc.was != nil {
				before.URL = s.ExternalURL("https", mapping.Name)
				mapping.GetConditionSet().Manage(before).MarkTrueWithReason(servingv1beta1.DomainMappingConditionCertificateProvisioned, *tc.was, "")
			}
			r := New(newWorld(t).Store, nil, nil, tc.answer)
			locate(mapping, s)
			r.certify(mapping, before, s)
			if got := mapping.Status.URL.String(); got != tc.url || mapping.Status.Address.URL.String() != got {
				t.Errorf("URL %s, address %s, want %s", got, mapping.Status.Address.URL, tc.url)
			}
			c := mapping.Status.GetCondition(servingv1beta1.DomainMappingConditionCertificateProvisioned)
			if diff := cmp.Diff(tc.wantOfCert, fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)); diff != "" {
				t.Errorf("CertificateProvisioned (-want +got):\n%s", diff)
			}
		})
	}
}
