package admission

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/revision"
)

func serviceTemplate(o object) *servingv1.RevisionTemplateSpec {
	if service, ok := o.(*servingv1.Service); ok {
		return &service.Spec.Template
	}
	return nil
}

// configurationTemplate leaves out Configurations of a Service: that has been tried already.
func configurationTemplate(o object) *servingv1.RevisionTemplateSpec {
	if configuration, ok := o.(*servingv1.Configuration); ok && configuration.Labels[serving.ServiceLabelKey] == "" {
		return &configuration.Spec.Template
	}
	return nil
}

// dryRun tries, when the user tries an object, whether the API server would take the pod that it leads to.
func (s *Server) dryRun(ctx context.Context, k kind, o object) error {
	if !apis.IsDryRun(ctx) || k.template == nil {
		return nil
	}
	template := k.template(o)
	if template == nil {
		return nil
	}
	meta := metav1.ObjectMeta{GenerateName: "dry-run-validation", Namespace: o.GetObjectMeta().GetNamespace()}
	tried := &servingv1.Revision{ObjectMeta: meta, Spec: *template.Spec.DeepCopy()}
	tried.SetDefaults(ctx)
	pod := &corev1.Pod{ObjectMeta: meta, Spec: revision.PodSpec(tried, s.options.Config.Load())}
	_, err := s.clients.CoreV1().Pods(meta.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "does not support dry run"):
		// Another webhook for pods does not say that it has no side effects; then nothing can be tried.
		s.options.Logger.Warn("dry run of a pod is not possible", "error", err)
		return nil
	default:
		return apis.ErrGeneric("dry run failed with "+err.Error(), "spec.template")
	}
}
