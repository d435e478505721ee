package admission

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the expected answers of the golden files")

// example is one section of a golden file: what a user asks for, and under which configuration.
type example struct {
	name string
	// Kind is that of the file's base.
	Kind string
	// Config holds config maps by name.
	Config map[string]map[string]string
	// Old is merged into the base and has been stored by alice; it makes an update.
	Old json.RawMessage
	// New is merged into the base, or into what is stored, and is sent by User.
	New  json.RawMessage
	User string
	// Subresource of an update.
	Subresource string
	// Warnings shows them; nearly every Service gets one.
	Warnings bool
	base     json.RawMessage
}

// TestGolden sends what each section of each file describes through both webhooks, as the API server does, and compares the
// answer with the section's "want". Run it with -update to renew the answers, and read them then: they are what users see.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, examples := readExamples(t, file)
			got := &txtar.Archive{Comment: archive.Comment, Files: archive.Files[:1:1]}
			for _, e := range examples {
				source := archive.Files[slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == e.name })]
				answer := answerTo(t, e)
				got.Files = append(got.Files, source, txtar.File{Name: "want: " + e.name, Data: []byte(answer)})
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
		})
	}
}

func goldenFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return files
}

func readExamples(t *testing.T, file string) (*txtar.Archive, []example) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var base example
	var examples []example
	for i, f := range archive.Files {
		if strings.HasPrefix(f.Name, "want: ") {
			continue
		}
		e := example{name: f.Name, Kind: base.Kind, User: "alice", base: base.New}
		if err := yaml.UnmarshalStrict(f.Data, &e); err != nil {
			t.Fatalf("%s: section %q: %v", file, f.Name, err)
		}
		if i == 0 {
			base = e
			continue
		}
		examples = append(examples, e)
	}
	return archive, examples
}

// answerTo is what the user reads.
func answerTo(t *testing.T, e example) string {
	t.Helper()
	s := newServer(t, nil, e.Config)
	req := e.request(t, s)
	response := s.mutate(t.Context(), req)
	if response.Allowed {
		req.Object.Raw = patched(t, req.Object.Raw, response.Patch)
		response = s.validate(t.Context(), req)
	}
	if !e.Warnings {
		response.Warnings = nil
	}
	return text(response)
}

func text(response *admissionv1.AdmissionResponse) string {
	answer := "allowed\n"
	if !response.Allowed {
		answer = response.Result.Message + "\n"
	}
	for _, warning := range response.Warnings {
		answer += "warning: " + warning + "\n"
	}
	// go-cmp, which writes the differences, mixes in other blanks so that nobody relies on its output.
	answer = strings.NewReplacer("\u00a0", " ", "\t", "  ").Replace(answer)
	return strings.ReplaceAll(answer, "\n\n", "\n")
}

// request is what the API server sends to the first webhook.
func (e example) request(t *testing.T, s *Server) *admissionv1.AdmissionRequest {
	t.Helper()
	i := slices.IndexFunc(kinds(), func(k kind) bool { return k.gvk.Kind == e.Kind })
	if i < 0 {
		t.Fatalf("%s: no kind %q", e.name, e.Kind)
	}
	k := kinds()[i]
	req := &admissionv1.AdmissionRequest{
		UID: "1", Kind: metav1.GroupVersionKind{Group: k.gvk.Group, Version: k.gvk.Version, Kind: e.Kind},
		Resource:  metav1.GroupVersionResource{Group: k.gvk.Group, Version: k.gvk.Version, Resource: k.plural},
		Namespace: "default", Operation: admissionv1.Create, UserInfo: authenticationv1.UserInfo{Username: e.User},
		SubResource: e.Subresource,
	}
	sent := e.base
	if e.Old != nil {
		stored := *req
		stored.UserInfo.Username, stored.SubResource = "alice", ""
		stored.Object = runtime.RawExtension{Raw: merged(t, sent, e.Old)}
		response := s.mutate(t.Context(), &stored)
		if !response.Allowed {
			t.Fatalf("%s: the stored object is refused: %s", e.name, response.Result.Message)
		}
		sent = patched(t, stored.Object.Raw, response.Patch)
		req.Operation, req.OldObject.Raw = admissionv1.Update, sent
	}
	req.Object.Raw = merged(t, sent, e.New)
	return req
}

func merged(t *testing.T, into, patch json.RawMessage) []byte {
	t.Helper()
	if patch == nil {
		return into
	}
	data, err := jsonpatch.MergePatch(into, patch)
	if err != nil {
		t.Fatalf("merging %s: %v", patch, err)
	}
	return data
}

func patched(t *testing.T, data, operations []byte) []byte {
	t.Helper()
	if len(operations) == 0 {
		return data
	}
	patch, err := jsonpatch.DecodePatch(operations)
	if err != nil {
		t.Fatal(err)
	}
	after, err := patch.Apply(data)
	if err != nil {
		t.Fatalf("the patch %s does not apply: %v", operations, err)
	}
	return after
}

// podSpec is a Service with one more field in its container or beside it, as YAML in flow style.
func podSpec(container, beside string) []byte {
	text := fmt.Sprintf("metadata: {name: hello, namespace: default}\nspec: {template: {spec: {%s containers: [{image: ghcr.io/a/b, %s}]}}}", beside, container)
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", text, err))
	}
	return data
}
