package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"

	"github.com/weft-dev/weft/serving/config"
)

var errNoObject = errors.New("the new object may not be nil")

// validate answers /resource-validation.
func (s *Server) validate(ctx context.Context, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return allow()
	}
	k, ok := find(req)
	if !ok {
		return refuse("decoding request failed: unhandled kind: %v", req.Kind)
	}
	before, after, err := decode(k, req)
	if err != nil {
		return refuse("decoding request failed: %v", err)
	}
	if after == nil {
		return refuse("validation failed: %v", errNoObject)
	}
	ctx = within(s.options.Config.ToContext(ctx), req, before)
	found := after.Validate(ctx)
	response := allow()
	if wrong := found.Filter(apis.ErrorLevel); wrong != nil {
		response = refuse("validation failed: %v", wrong)
	} else if err := s.dryRun(ctx, k, after); err != nil {
		response = refuse("validation callback failed: %v", err)
	}
	if warnings := found.Filter(apis.WarningLevel); warnings != nil {
		for _, warning := range warnings.WrappedErrors() {
			response.Warnings = append(response.Warnings, warning.Error())
		}
	}
	return response
}

// validateConfig answers /config-validation: an edit that would not come into force is refused with the reason.
func (s *Server) validateConfig(_ context.Context, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return allow()
	}
	var configMap corev1.ConfigMap
	if err := json.Unmarshal(req.Object.Raw, &configMap); err != nil {
		return refuse("validation failed: cannot decode incoming new object: %v", err)
	}
	if !config.Known(configMap.Name) {
		return allow()
	}
	if err := checkExample(&configMap); err != nil {
		return refuse("validation failed: %v", err)
	}
	if err := config.Validate(configMap.Name, configMap.Data); err != nil {
		return refuse("validation failed: %v", err)
	}
	return allow()
}

const (
	exampleKey                = "_example"
	exampleChecksumAnnotation = "knative.dev/example-checksum"
)

var newlines = regexp.MustCompile(`(?:\r?\n)+`)

// checkExample refuses edits inside the example of a map that carries its checksum: nobody means them.
func checkExample(configMap *corev1.ConfigMap) error {
	example, ok := configMap.Data[exampleKey]
	want, marked := configMap.Annotations[exampleChecksumAnnotation]
	if !ok || !marked {
		return nil
	}
	// Upstream's checksum joins lines by a backslash and an n, and so must this.
	joined := newlines.ReplaceAllString(strings.TrimSpace(example), `\n`)
	if fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(joined))) == want {
		return nil
	}
	return fmt.Errorf("the update modifies a key in %q which is probably not what you want. "+
		"Instead, copy the respective setting to the top-level of the ConfigMap, directly below %q", exampleKey, "data")
}
