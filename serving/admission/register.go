package admission

import (
	"context"
	"fmt"
	"net"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applyv1 "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/weft-dev/weft/serving/config"
)

// The names of the webhooks, which are upstream's, so that tools that look for them find them.
const (
	defaultingName       = "webhook.serving.knative.dev"
	validationName       = "validation.webhook.serving.knative.dev"
	configValidationName = "config.webhook.serving.knative.dev"
)

// fieldManager owns the registrations.
const fieldManager = "weft-admission"

// answerTime is how long the API server waits for an answer, which takes a millisecond.
const answerTime = 5 * time.Second

// register tells the API server where the webhooks are. Server-side apply makes or corrects them in one call each.
func (s *Server) register(ctx context.Context, authority []byte, address net.Addr) error {
	api := s.clients.AdmissionregistrationV1()
	apply := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
	mutating := applyv1.MutatingWebhookConfiguration(defaultingName).WithLabels(labels()).WithWebhooks(
		applyv1.MutatingWebhook().WithName(defaultingName).WithClientConfig(s.clientConfig(defaultingPath, authority, address)).
			WithRules(typeRules()...).WithNamespaceSelector(notExcluded()).
			WithReinvocationPolicy(admissionregistrationv1.IfNeededReinvocationPolicy).
			WithFailurePolicy(admissionregistrationv1.Fail).WithSideEffects(admissionregistrationv1.SideEffectClassNone).
			WithTimeoutSeconds(int32(answerTime / time.Second)).WithAdmissionReviewVersions("v1"))
	if _, err := api.MutatingWebhookConfigurations().Apply(ctx, mutating, apply); err != nil {
		return fmt.Errorf("registering webhook %q: %w", defaultingName, err)
	}
	validating := applyv1.ValidatingWebhookConfiguration(validationName).WithLabels(labels()).WithWebhooks(
		validatingWebhook(validationName, s.clientConfig(validationPath, authority, address)).
			WithRules(typeRules()...).WithNamespaceSelector(notExcluded()))
	if _, err := api.ValidatingWebhookConfigurations().Apply(ctx, validating, apply); err != nil {
		return fmt.Errorf("registering webhook %q: %w", validationName, err)
	}
	configuration := applyv1.ValidatingWebhookConfiguration(configValidationName).WithLabels(labels()).WithWebhooks(
		validatingWebhook(configValidationName, s.clientConfig(configValidationPath, authority, address)).
			WithRules(rule("", "v1", "configmaps")).
			WithNamespaceSelector(applymetav1.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: config.Namespace})))
	if _, err := api.ValidatingWebhookConfigurations().Apply(ctx, configuration, apply); err != nil {
		return fmt.Errorf("registering webhook %q: %w", configValidationName, err)
	}
	return nil
}

func labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/part-of": "weft"}
}

func validatingWebhook(name string, client *applyv1.WebhookClientConfigApplyConfiguration) *applyv1.ValidatingWebhookApplyConfiguration {
	return applyv1.ValidatingWebhook().WithName(name).WithClientConfig(client).
		WithFailurePolicy(admissionregistrationv1.Fail).WithSideEffects(admissionregistrationv1.SideEffectClassNone).
		WithTimeoutSeconds(int32(answerTime / time.Second)).WithAdmissionReviewVersions("v1")
}

// notExcluded leaves out namespaces that ask for it, as upstream does.
func notExcluded() *applymetav1.LabelSelectorApplyConfiguration {
	return applymetav1.LabelSelector().WithMatchExpressions(applymetav1.LabelSelectorRequirement().
		WithKey("webhooks.knative.dev/exclude").WithOperator(metav1.LabelSelectorOpDoesNotExist))
}

func typeRules() []*applyv1.RuleWithOperationsApplyConfiguration {
	var rules []*applyv1.RuleWithOperationsApplyConfiguration
	for _, k := range kinds() {
		rules = append(rules, rule(k.gvk.Group, k.gvk.Version, k.plural))
	}
	return rules
}

func rule(group, version, resource string) *applyv1.RuleWithOperationsApplyConfiguration {
	return applyv1.RuleWithOperations().WithOperations(admissionregistrationv1.Create, admissionregistrationv1.Update).
		WithAPIGroups(group).WithAPIVersions(version).WithResources(resource).WithScope(admissionregistrationv1.NamespacedScope)
}

// clientConfig is how the API server reaches one webhook.
func (s *Server) clientConfig(path string, authority []byte, address net.Addr) *applyv1.WebhookClientConfigApplyConfiguration {
	client := applyv1.WebhookClientConfig().WithCABundle(authority...)
	if svc := s.options.Service; svc != nil {
		return client.WithService(applyv1.ServiceReference().WithNamespace(svc.Namespace).WithName(svc.Name).WithPort(svc.Port).WithPath(path))
	}
	return client.WithURL("https://" + reachable(address) + path)
}

// reachable is the address that this machine's API server dials: loopback when the Server listens everywhere.
func reachable(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if ip := net.ParseIP(host); err != nil || (ip != nil && !ip.IsUnspecified()) {
		return address.String()
	}
	return net.JoinHostPort("127.0.0.1", port)
}
