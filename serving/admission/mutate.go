package admission

import (
	"context"
	"encoding/json"
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"knative.dev/pkg/apis"
)

// mutate answers /defaulting with the patch that completes an object.
func (s *Server) mutate(ctx context.Context, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return allow()
	}
	patch, err := s.patch(ctx, req)
	if err != nil {
		return refuse("mutation failed: %v", err)
	}
	response := allow()
	if len(patch) > 0 {
		response.Patch, response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
	}
	return response
}

func (s *Server) patch(ctx context.Context, req *admissionv1.AdmissionRequest) ([]byte, error) {
	k, ok := find(req)
	if !ok {
		return nil, fmt.Errorf("unhandled kind: %v", req.Kind)
	}
	before, after, err := decode(k, req)
	if err != nil {
		return nil, err
	}
	if after == nil {
		return nil, errNoObject
	}
	ctx = s.options.Config.ToContext(ctx)
	if before != nil {
		// Defaults that are newer than the stored object must not look like a change by the user.
		before.SetDefaults(ctx)
	}
	ctx = within(ctx, req, before)
	after.SetDefaults(ctx)
	sign(ctx, req, before, after)
	completed, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the defaulted object: %w", err)
	}
	// Compared with what was sent, not with what was decoded: a patch of a field below one that was not sent would be illegal.
	operations, err := jsonpatch.CreatePatch(req.Object.Raw, completed)
	if err != nil {
		return nil, fmt.Errorf("cannot create patch: %w", err)
	}
	if len(operations) == 0 {
		return nil, nil
	}
	return json.Marshal(operations)
}

// sign notes in annotations who created the object and who changed its spec last.
func sign(ctx context.Context, req *admissionv1.AdmissionRequest, before, after object) {
	user, spec := apis.GetUserInfo(ctx), untypedSpec(after)
	if user == nil || spec == nil {
		return
	}
	meta := after.GetObjectMeta()
	annotations := meta.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	switch {
	case before == nil:
		annotations[req.Resource.Group+apis.CreatorAnnotationSuffix] = user.Username
		annotations[req.Resource.Group+apis.UpdaterAnnotationSuffix] = user.Username
	case equality.Semantic.DeepEqual(untypedSpec(before), spec):
		return
	default:
		annotations[req.Resource.Group+apis.UpdaterAnnotationSuffix] = user.Username
	}
	meta.SetAnnotations(annotations)
}

// untypedSpec is the spec of kinds that tell it, else nil.
func untypedSpec(o object) any {
	if s, ok := o.(apis.HasSpec); ok {
		return s.GetUntypedSpec()
	}
	return nil
}
