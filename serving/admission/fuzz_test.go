package admission

import (
	"encoding/json"
	"log/slog"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/weft-dev/weft/serving/config"
)

// seeds adds objects of every kind: the bases of the golden files and what is between them and nothing.
func seeds(f *testing.F, add func(kind uint8, object string)) {
	f.Helper()
	for i := range kinds() {
		for _, object := range []string{
			`{}`, `{"spec":null}`, `{"metadata":null,"spec":{}}`, `{"metadata":{"name":"a","annotations":{"a":"b"}},"status":{}}`,
			`{"metadata":{"name":"a"},"spec":{"template":{"metadata":{"name":"a-b"},"spec":{"containers":[{"image":"ghcr.io/a/b"}]}}}}`,
			`{"metadata":{"name":"a"},"spec":{"template":{"spec":{"containers":[{"name":"a","image":"b","ports":[{"containerPort":80}]},{}],
				"volumes":[{"name":"v","projected":{"sources":[null,{}]}}],"initContainers":[{}]}},"traffic":[{"tag":"t"},{"percent":100}]}}`,
			`{"metadata":{"name":"a"},"spec":{"containers":[{"image":"b","readinessProbe":{"httpGet":{}},"resources":{"limits":{"cpu":"1e3"}},
				"volumeMounts":[{"name":"v"}]}],"timeoutSeconds":-1,"containerConcurrency":0}}`,
			`{"metadata":{"name":"a","ownerReferences":[],"annotations":{"serving.knative.dev/creator":"eve"}},"spec":{"template":{}}}`,
			`{"metadata":{"name":"a.b.c"},"spec":{"ref":{"kind":"Service","name":"a","apiVersion":"serving.knative.dev/v1"},"tls":{}}}`,
			`{"metadata":{"name":"a"},"spec":{"protocolType":"h2c","scaleTargetRef":{"kind":"K","name":"a","apiVersion":"v1"}}}`,
		} {
			add(uint8(i), object)
		}
	}
}

// fuzzRequest is a request about one of the kinds; it is an update when there is an old object.
func fuzzRequest(of uint8, after, before string) *admissionv1.AdmissionRequest {
	k := kinds()[int(of)%len(kinds())]
	req := &admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Group: k.gvk.Group, Version: k.gvk.Version, Kind: k.gvk.Kind},
		Resource: metav1.GroupVersionResource{Group: k.gvk.Group, Version: k.gvk.Version, Resource: k.plural},
		UserInfo: authenticationv1.UserInfo{Username: "alice"}, Object: runtime.RawExtension{Raw: []byte(after)},
	}
	if before != "" {
		req.Operation, req.OldObject.Raw = admissionv1.Update, []byte(before)
	}
	return req
}

func fuzzServer() *Server {
	logger := slog.New(slog.DiscardHandler)
	return New(nil, Options{Config: config.NewStore(config.Options{Logger: logger}), Logger: logger})
}

// FuzzHandler makes sure that no object brings the server down.
func FuzzHandler(f *testing.F) {
	seeds(f, func(kind uint8, object string) {
		f.Add(kind, object, "")
		f.Add(kind, object, `{"metadata":{"name":"a"},"spec":{}}`)
	})
	s := fuzzServer()
	f.Fuzz(func(t *testing.T, kind uint8, after, before string) {
		req := fuzzRequest(kind, after, before)
		if mutated, validated := s.mutate(t.Context(), req), s.validate(t.Context(), req); mutated == nil || validated == nil {
			t.Error("no answer")
		}
	})
}

// FuzzDefaulting makes sure that what defaulting sends back applies to what was sent, and that an object that has been defaulted
// needs nothing more: else each write of a controller would be a change.
func FuzzDefaulting(f *testing.F) {
	seeds(f, func(kind uint8, object string) { f.Add(kind, object) })
	s := fuzzServer()
	f.Fuzz(func(t *testing.T, kind uint8, object string) {
		req := fuzzRequest(kind, object, "")
		first := s.mutate(t.Context(), req)
		if !first.Allowed {
			return
		}
		stored := []byte(object)
		if len(first.Patch) > 0 {
			patch, err := jsonpatch.DecodePatch(first.Patch)
			if err != nil {
				t.Fatal(err)
			}
			if stored, err = patch.Apply(stored); err != nil {
				t.Fatalf("the patch %s does not apply: %v", first.Patch, err)
			}
		}
		if !json.Valid(stored) {
			t.Fatalf("the patch makes %s", stored)
		}
		req.Object.Raw = stored
		if again := s.mutate(t.Context(), req); !again.Allowed || len(again.Patch) > 0 {
			t.Errorf("defaulted again: %s, %v\nstored %s", again.Patch, again.Result, stored)
		}
	})
}
