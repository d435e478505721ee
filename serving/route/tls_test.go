package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// answers are what a provider of certificates says, by host: a reason. Hosts that are not in it are fine.
type answers map[string]string

func (a answers) LocalCertificate(namespace, host string) (name, reason, message string) {
	return "local/" + namespace, a[host], "because of " + host
}

func (answers) CertificateChanges() <-chan event.GenericEvent { return nil }

// TestCertify looks at the URLs and the condition of a route with one tag, http://hello.default.localhost:8080 before.
func TestCertify(t *testing.T) {
	t.Parallel()
	const (
		hello, next = "hello.default.localhost", "next-hello.default.localhost"
		secureURLs  = "https://hello.default.localhost:8443 https://next-hello.default.localhost:8443"
		plainURLs   = "http://hello.default.localhost:8080 http://next-hello.default.localhost:8080"
	)
	enabled := func(more ...string) map[string]string {
		data := map[string]string{"external-domain-tls": "Enabled"}
		for i := 0; i < len(more); i += 2 {
			data[more[i]] = more[i+1]
		}
		return data
	}
	for _, tc := range []struct {
		name        string
		network     map[string]string
		annotations map[string]string
		answers     answers
		// was is the condition before, "status reason".
		wasSecure, local bool
		urls, condition  string
	}{
		{name: "off", urls: plainURLs, condition: "True TLSNotEnabled external-domain-tls is not enabled"},
		{name: "on", network: enabled(), urls: secureURLs, condition: "True  "},
		{
			name: "off by annotation", network: enabled(), annotations: map[string]string{"networking.knative.dev/disable-external-domain-tls": "true"},
			urls: plainURLs, condition: "True TLSNotEnabled external-domain-tls is not enabled",
		},
		{
			name: "off by the older annotation", network: enabled(), annotations: map[string]string{"networking.knative.dev/disableAutoTLS": "true"},
			urls: plainURLs, condition: "True TLSNotEnabled external-domain-tls is not enabled",
		},
		{
			name: "annotation that is no boolean", network: enabled(), annotations: map[string]string{"networking.knative.dev/disable-external-domain-tls": "maybe"},
			urls: secureURLs, condition: "True  ",
		},
		{
			name: "cluster-local", network: enabled(), local: true,
			urls: "http://hello.default.svc.cluster.local ", condition: "True TLSNotEnabled TLS is not enabled for cluster-local",
		},
		{
			name: "on its way", network: enabled(), answers: answers{next: "CertificateNotReady"},
			urls: secureURLs, condition: "Unknown CertificateNotReady Certificate local/default is not ready: because of " + next,
		},
		{name: "being renewed", network: enabled(), answers: answers{hello: "CertificateNotReady"}, wasSecure: true, urls: secureURLs, condition: "True  "},
		{
			name: "failed, http allowed", network: enabled(), answers: answers{hello: "CertificateProvisionFailed"},
			urls:      "http://hello.default.localhost:8080 https://next-hello.default.localhost:8443",
			condition: "True HTTPDowngrade Certificate local/default is not ready downgrade HTTP: because of " + hello,
		},
		{
			name: "failed, http redirected", network: enabled("http-protocol", "Redirected"), wasSecure: true,
			answers: answers{hello: "CertificateProvisionFailed", next: "CertificateNotReady"},
			urls:    secureURLs, condition: "False CertificateProvisionFailed Certificate local/default fails to be provisioned: because of " + hello,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := with(t, 8080, map[string]map[string]string{"config-network": tc.network})
			s.HTTPSPort = 8443
			route := &servingv1.Route{}
			route.Namespace, route.Annotations = "default", tc.annotations
			route.Status.InitializeConditions()
			route.Status.URL = s.ExternalURL("http", hello)
			route.Status.Traffic = []servingv1.TrafficTarget{{RevisionName: "a"}, {Tag: "next", URL: s.ExternalURL("http", next)}}
			if tc.local {
				route.Status.URL, route.Status.Traffic = apis.HTTP("hello.default.svc.cluster.local"), nil
			}
			before := route.Status.DeepCopy()
			if tc.wasSecure {
				before.URL = s.ExternalURL("https", hello)
				route.GetConditionSet().Manage(before).MarkTrue(servingv1.RouteConditionCertificateProvisioned)
			}
			(&Reconciler{certificates: tc.answers}).certify(route, before, s)
			urls := []string{route.Status.URL.String(), ""}
			for _, target := range route.Status.Traffic {
				if target.Tag != "" {
					urls[1] = target.URL.String()
				}
			}
			if diff := cmp.Diff(tc.urls, strings.Join(urls, " ")); diff != "" {
				t.Errorf("URLs (-want +got):\n%s", diff)
			}
			c := route.Status.GetCondition(servingv1.RouteConditionCertificateProvisioned)
			if diff := cmp.Diff(tc.condition, fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)); diff != "" {
				t.Errorf("CertificateProvisioned (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCertifyWithoutProvider(t *testing.T) {
	t.Parallel()
	s := with(t, 8080, map[string]map[string]string{"config-network": {"external-domain-tls": "Enabled", "http-protocol": "Redirected"}})
	route := &servingv1.Route{}
	route.Status.URL = s.ExternalURL("http", "hello.default.localhost")
	(&Reconciler{}).certify(route, &servingv1.RouteStatus{}, s)
	if c := route.Status.GetCondition(servingv1.RouteConditionCertificateProvisioned); !c.IsFalse() {
		t.Errorf("CertificateProvisioned is %v, want False", c)
	}
}
