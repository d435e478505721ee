package admission

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	apiconfig "knative.dev/serving/pkg/apis/config"
)

// TestAgreesWithTheTypes asks the published types themselves, with the configuration as their own package parses it, and compares
// what they say with what the webhooks answer to the API server: the stored object and the text.
func TestAgreesWithTheTypes(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			_, examples := readExamples(t, file)
			for _, e := range examples {
				e.Warnings = true
				s := newServer(t, nil, e.Config)
				req := e.request(t, s)
				wantStored, want := contract(t, e, req)
				if got := answerTo(t, e); got != want {
					t.Errorf("%s: answer (-types +webhooks):\n%s", e.name, cmp.Diff(want, got))
				}
				if wantStored == nil {
					continue
				}
				var got map[string]any
				if err := json.Unmarshal(patched(t, req.Object.Raw, s.mutate(t.Context(), req).Patch), &got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(wantStored, got); diff != "" {
					t.Errorf("%s: stored object (-types +webhooks):\n%s", e.name, diff)
				}
			}
		})
	}
}

// contract is what the types make of a request: the object as it is stored, nil when it does not decode, and the answer.
func contract(t *testing.T, e example, req *admissionv1.AdmissionRequest) (stored map[string]any, answer string) {
	t.Helper()
	k, ok := find(req)
	if !ok {
		t.Fatalf("%s: unknown kind", e.name)
	}
	after := k.make()
	if err := json.Unmarshal(req.Object.Raw, after); err != nil {
		return nil, "mutation failed: cannot decode incoming new object: " + err.Error() + "\n"
	}
	base := apis.WithUserInfo(typesContext(t, e.Config), &req.UserInfo)
	within := func(before object) context.Context {
		switch {
		case before == nil:
			return apis.WithinCreate(base)
		case e.Subresource != "":
			return apis.WithinSubResourceUpdate(base, before, e.Subresource)
		default:
			return apis.WithinUpdate(base, before)
		}
	}
	var before object
	if e.Old != nil {
		before = decoded(t, k, req.OldObject.Raw)
		before.SetDefaults(base)
	}
	after.SetDefaults(within(before))
	data, err := json.Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	// What is validated has been to the API server and back.
	if e.Old != nil {
		before = decoded(t, k, req.OldObject.Raw)
	}
	found := decoded(t, k, data).Validate(within(before))
	response := &admissionv1.AdmissionResponse{Allowed: true}
	if wrong := found.Filter(apis.ErrorLevel); wrong != nil {
		response = &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "validation failed: " + wrong.Error()}}
	}
	if warnings := found.Filter(apis.WarningLevel); warnings != nil {
		for _, w := range warnings.WrappedErrors() {
			response.Warnings = append(response.Warnings, w.Error())
		}
	}
	return stored, text(response)
}

func decoded(t *testing.T, k kind, data []byte) object {
	t.Helper()
	o := k.make()
	if err := json.Unmarshal(data, o); err != nil {
		t.Fatal(err)
	}
	return o
}

// typesContext gives the types their configuration as upstream's webhook does.
func typesContext(t *testing.T, maps map[string]map[string]string) context.Context {
	t.Helper()
	store := apiconfig.NewStore(printf{})
	for _, name := range []string{"config-autoscaler", "config-defaults", "config-features"} {
		store.OnConfigChanged(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: maps[name]})
	}
	return store.ToContext(t.Context())
}

// printf is the logger that upstream's store wants.
type printf struct{}

func (printf) Debugf(string, ...any) {}
func (printf) Infof(string, ...any)  {}
func (printf) Errorf(format string, args ...any) {
	slog.Error("configuration of the types", "format", format, "args", args)
}
func (printf) Fatalf(format string, args ...any) { panic(format) }
