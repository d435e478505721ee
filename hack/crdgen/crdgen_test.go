package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const committed = "../../config/crd"

// TestCommittedFilesAreCurrent fails when the committed definitions differ from what the types say now.
func TestCommittedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds() {
		t.Run(k.names.Kind, func(t *testing.T) {
			t.Parallel()
			want := read(t, filepath.Join(dir, k.fileName()))
			got := read(t, filepath.Join(committed, k.fileName()))
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s is not what crdgen writes; run `make generate` (-want +got):\n%s", k.fileName(), diff)
			}
		})
	}
}

func TestOutputIsDeterministic(t *testing.T) {
	t.Parallel()
	once, again := newDocumentation(), newDocumentation()
	for _, k := range kinds() {
		first, err := render(once, k)
		if err != nil {
			t.Fatal(err)
		}
		second, err := render(again, k)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(first, second) {
			t.Errorf("%s: two runs differ", k.fileName())
		}
	}
}

// TestSchemasAgreeWithUpstream compares with the definitions that the Knative module ships, so that what Knative stores, prunes and
// defaults, Weft does too. Only what cannot change behaviour may differ.
func TestSchemasAgreeWithUpstream(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"Service":            "knative.dev/serving/config/core/300-resources/service.yaml",
		"Configuration":      "knative.dev/serving/config/core/300-resources/configuration.yaml",
		"Revision":           "knative.dev/serving/config/core/300-resources/revision.yaml",
		"Route":              "knative.dev/serving/config/core/300-resources/route.yaml",
		"DomainMapping":      "knative.dev/serving/config/core/300-resources/domain-mapping.yaml",
		"PodAutoscaler":      "knative.dev/serving/config/core/300-resources/podautoscaler.yaml",
		"ClusterDomainClaim": "knative.dev/networking/config/domain-claim.yaml",
	}
	docs := newDocumentation()
	for _, k := range kinds() {
		t.Run(k.names.Kind, func(t *testing.T) {
			t.Parallel()
			module, file := splitModule(files[k.names.Kind])
			want := specOf(t, read(t, filepath.Join(moduleDir(t, module), file)))
			ours, err := render(docs, k)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, specOf(t, ours)); diff != "" {
				t.Errorf("definition differs from upstream's (-upstream +ours):\n%s", diff)
			}
		})
	}
}

// specOf decodes a definition and drops what cannot change behaviour: descriptions, what the API server fills in by itself, and
// the mark of atomic lists, which is how lists are treated without a mark.
func specOf(t *testing.T, data []byte) any {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	spec, ok := object["spec"].(map[string]any)
	if !ok {
		t.Fatal("the definition has no spec")
	}
	delete(spec, "conversion")
	if names, ok := spec["names"].(map[string]any); ok {
		delete(names, "listKind")
	}
	return normal(spec)
}

func normal(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			_, text := below.(string)
			if key == "description" && text || key == "x-kubernetes-list-type" && below == "atomic" {
				delete(v, key)
				continue
			}
			v[key] = normal(below)
		}
		return v
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
		return v
	default:
		return v
	}
}

func splitModule(path string) (module, file string) {
	parts := strings.SplitN(path, "/", 3)
	return parts[0] + "/" + parts[1], parts[2]
}

func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-json", module).Output()
	if err != nil {
		t.Fatalf("finding module %s: %v", module, err)
	}
	var info struct{ Dir string }
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	return info.Dir
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDescriptions makes sure that kubectl explain has something to say, and that it is short: the API server keeps it in memory.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	docs := newDocumentation()
	for _, tt := range []struct{ kind, path, want string }{
		{"Service", "spec.template", "Template holds the latest specification for the Revision to be stamped out."},
		{"Service", "spec.template.spec.containers.image", "Container image name."},
		{"Route", "spec.traffic.tag", "Tag is optionally used to expose a dedicated url for referencing this target exclusively."},
		{"ClusterDomainClaim", "", "ClusterDomainClaim is a cluster-wide reservation for a particular domain name."},
	} {
		i := slices.IndexFunc(kinds(), func(k kind) bool { return k.names.Kind == tt.kind })
		schema, err := docs.objectSchema(kinds()[i].object, kinds()[i].filter)
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsFuncSeq(tt.path, func(r rune) bool { return r == '.' }) {
			if schema.Items != nil {
				schema = *schema.Items.Schema
			}
			schema = schema.Properties[name]
		}
		if schema.Description != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.kind, tt.path, schema.Description, tt.want)
		}
	}
	const limit = 100 << 10
	for _, k := range kinds() {
		if data := read(t, filepath.Join(committed, k.fileName())); len(data) > limit {
			t.Errorf("%s has %d bytes, more than %d", k.fileName(), len(data), limit)
		}
	}
}
