package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestKinds looks at what kubectl says of each kind: its short names, its columns, and what its fields mean.
func TestKinds(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	u.deploy("shown", annotate("window", "6s"))
	mapping := fmt.Sprintf(`{"apiVersion":"serving.knative.dev/v1beta1","kind":"DomainMapping","metadata":{"name":"shown.%s.test"},`+
		`"spec":{"ref":{"apiVersion":"serving.knative.dev/v1","kind":"Service","name":"shown"}}}`, u.namespace)
	claim := fmt.Sprintf(`{"apiVersion":"networking.internal.knative.dev/v1alpha1","kind":"ClusterDomainClaim",`+
		`"metadata":{"name":"shown.%s.test"},"spec":{"namespace":%q}}`, u.namespace, u.namespace)
	for _, object := range []string{claim, mapping} {
		file := filepath.Join(t.TempDir(), "object.json")
		if err := os.WriteFile(file, []byte(object), 0o600); err != nil {
			t.Fatal(err)
		}
		u.kubectl("apply", "-f", file)
	}
	t.Cleanup(func() { _, _ = u.Weft("kubectl", "delete", "cdc", fmt.Sprintf("shown.%s.test", u.namespace)) })
	for _, tt := range []struct {
		names   []string
		columns string
	}{
		{[]string{"ksvc", "kservice", "services.serving.knative.dev"}, "NAME URL LATESTCREATED LATESTREADY READY REASON"},
		{[]string{"config", "cfg", "configurations"}, "NAME LATESTCREATED LATESTREADY READY REASON"},
		{[]string{"rev", "revisions"}, "NAME CONFIG NAME GENERATION READY REASON ACTUAL REPLICAS DESIRED REPLICAS"},
		{[]string{"rt", "routes"}, "NAME URL READY REASON"},
		{[]string{"dm", "domainmappings"}, "NAME URL READY REASON"},
		{[]string{"kpa", "pa", "podautoscalers"}, "NAME DESIREDSCALE ACTUALSCALE READY REASON"},
		{[]string{"cdc", "clusterdomainclaims"}, "NAME AGE"},
	} {
		for _, name := range tt.names {
			header, _, _ := strings.Cut(u.kubectl("get", name), "\n")
			if got := strings.Join(strings.Fields(header), " "); got != tt.columns {
				t.Errorf("kubectl get %s shows %q, want %q", name, got, tt.columns)
			}
		}
	}
	for category, want := range map[string][]string{
		"knative": {"service.serving.knative.dev/shown", "route.serving.knative.dev/shown", "configuration.serving.knative.dev/shown", "revision.serving.knative.dev/shown-00001"},
		"all":     {"service.serving.knative.dev/shown", "deployment.apps/shown-00001-deployment"},
	} {
		got := strings.Fields(u.kubectl("get", category, "-o", "name"))
		for _, object := range want {
			if !slices.Contains(got, object) {
				t.Errorf("kubectl get %s lacks %s: %v", category, object, got)
			}
		}
	}
	if got := u.kubectl("explain", "ksvc.spec.template"); !strings.Contains(got, "FIELDS:\n  metadata") ||
		!strings.Contains(strings.Join(strings.Fields(got), " "), "Template holds the latest specification for the Revision to be stamped out.") {
		t.Errorf("kubectl explain says %q", got)
	}
	// A write of the status subresource changes neither the spec nor who changed it last.
	before, err := u.load("shown")
	if err != nil {
		t.Fatal(err)
	}
	s := before.DeepCopy()
	s.Spec.Template.Spec.TimeoutSeconds = new(int64(5))
	s.Annotations["serving.knative.dev/lastModifier"] = "eve"
	if err := u.Kube.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.Generation != before.Generation || *s.Spec.Template.Spec.TimeoutSeconds == 5 || s.Annotations["serving.knative.dev/lastModifier"] == "eve" {
		t.Errorf("the status subresource changed more than the status: %+v", s.ObjectMeta)
	}
}

// TestAdmission sends what only the real API server can judge: fields that do not exist, dry runs, who wrote, and deletions.
func TestAdmission(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	unknown := map[string]any{
		"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": map[string]any{"name": "odd", "namespace": u.namespace},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"colour": "red", "containers": []any{map[string]any{"image": serverImage}}}}},
	}
	if err := u.Kube.Create(t.Context(), &unstructured.Unstructured{Object: unknown}, client.FieldValidation("Strict")); err == nil || !strings.Contains(err.Error(), `unknown field "spec.template.spec.colour"`) {
		t.Errorf("an unknown field, strictly: %v", err)
	}
	file := filepath.Join(t.TempDir(), "odd.json")
	data, err := json.Marshal(unknown)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := u.kubectl("apply", "--validate=warn", "--dry-run=server", "-f", file); !strings.Contains(out, `Warning: unknown field "spec.template.spec.colour"`) {
		t.Errorf("an unknown field with a warning: %s", out)
	}

	if _, err := u.tried(); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if _, err := u.load("tried"); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run leaves %v", err)
	}
	_, err = u.tried(func(s *servingv1.Service) {
		s.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"Not A Resource": {}}
	})
	if err == nil || !strings.Contains(err.Error(), "validation callback failed") {
		t.Errorf("a dry run of a pod that the API server refuses: %v", err)
	}

	claim := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ClusterDomainClaim",
		"metadata": map[string]any{"name": "nobody." + u.namespace + ".test"}, "spec": map[string]any{},
	}}
	if err := u.Kube.Create(t.Context(), claim); err == nil || !strings.Contains(err.Error(), "spec.namespace: Required value") {
		t.Errorf("a claim for no namespace: %v", err)
	}

	s := u.deploy("written", annotate("window", "6s"))
	for _, key := range []string{"serving.knative.dev/creator", "serving.knative.dev/lastModifier"} {
		if s.Annotations[key] == "" {
			t.Errorf("%s is not set", key)
		}
	}
	if out := u.kubectl("patch", "ksvc", "written", "--type=merge", "-p", `{"metadata":{"labels":{"a":"b"}}}`, "--as=eve", "--as-group=system:masters"); !strings.Contains(out, "patched") {
		t.Error(out)
	}
	out := u.kubectl("patch", "ksvc", "written", "--type=merge", "-p", `{"spec":{"template":{"spec":{"timeoutSeconds":7}}}}`, "--as=eve", "--as-group=system:masters")
	changed, err := u.load("written")
	if err != nil {
		t.Fatal(err)
	}
	if changed.Annotations["serving.knative.dev/lastModifier"] != "eve" || changed.Annotations["serving.knative.dev/creator"] == "eve" {
		t.Errorf("%s: creator and modifier are %v", out, changed.Annotations)
	}
	refused, err := u.Weft("kubectl", "-n", u.namespace, "annotate", "--overwrite", "ksvc", "written", "serving.knative.dev/creator=eve")
	if err == nil || !strings.Contains(refused, "annotation value is immutable: metadata.annotations.serving.knative.dev/creator") {
		t.Errorf("another creator: %v %s", err, refused)
	}
	u.kubectl("delete", "ksvc", "written", "--wait")
	if _, err := u.load("written"); !apierrors.IsNotFound(err) {
		t.Errorf("after its deletion: %v", err)
	}
}
