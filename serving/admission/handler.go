package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"knative.dev/pkg/apis"
	sigsjson "sigs.k8s.io/json"
)

// maxRequest bounds a request; the API server stores no object of this size.
const maxRequest = 8 << 20

// review answers one request.
type review func(ctx context.Context, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

// Handler serves the three webhooks.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+defaultingPath, handle(s.mutate))
	mux.Handle("POST "+validationPath, handle(s.validate))
	mux.Handle("POST "+configValidationPath, handle(s.validateConfig))
	return mux
}

func handle(answer review) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			http.Error(w, fmt.Sprintf("could not read body: %v", err), http.StatusBadRequest)
			return
		}
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(body, &review); err != nil {
			http.Error(w, fmt.Sprintf("could not decode body: %v", err), http.StatusBadRequest)
			return
		}
		if review.Request == nil {
			http.Error(w, "the review has no request", http.StatusBadRequest)
			return
		}
		response := answer(r.Context(), review.Request)
		response.UID = review.Request.UID
		w.Header().Set("Content-Type", "application/json")
		// An error here is a broken connection; the API server applies the failure policy.
		_ = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
	})
}

// refuse is the answer that upstream gives: a bad request with a text.
func refuse(format string, args ...any) *admissionv1.AdmissionResponse {
	status := apierrors.NewBadRequest(fmt.Sprintf(format, args...)).Status()
	return &admissionv1.AdmissionResponse{Result: &status}
}

func allow() *admissionv1.AdmissionResponse { return &admissionv1.AdmissionResponse{Allowed: true} }

// decode reads both objects of a request; one that is not there is nil.
func decode(k kind, req *admissionv1.AdmissionRequest) (before, after object, err error) {
	if after, err = read(k, req.Object); err != nil {
		return nil, nil, fmt.Errorf("cannot decode incoming new object: %w", err)
	}
	if before, err = read(k, req.OldObject); err != nil {
		return nil, nil, fmt.Errorf("cannot decode incoming old object: %w", err)
	}
	return before, after, nil
}

func read(k kind, raw runtime.RawExtension) (object, error) {
	if len(raw.Raw) == 0 {
		return nil, nil //nolint:nilnil // creations have no old object, and that is no error.
	}
	o := k.make()
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(raw.Raw, o); err != nil {
		return nil, err
	}
	// Whether a Service owns an object is asked of this list, and an empty one is not stored.
	if meta := o.GetObjectMeta(); len(meta.GetOwnerReferences()) == 0 {
		meta.SetOwnerReferences(nil)
	}
	return o, nil
}

// within gives ctx what defaulting and validation ask about the request.
func within(ctx context.Context, req *admissionv1.AdmissionRequest, before object) context.Context {
	ctx = apis.WithUserInfo(ctx, &req.UserInfo)
	if req.DryRun != nil && *req.DryRun {
		ctx = apis.WithDryRun(ctx)
	}
	switch {
	case before == nil:
		return apis.WithinCreate(ctx)
	case req.SubResource != "":
		return apis.WithinSubResourceUpdate(ctx, before, req.SubResource)
	default:
		return apis.WithinUpdate(ctx, before)
	}
}
