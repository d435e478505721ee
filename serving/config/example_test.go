package config

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/configmap"
	"sigs.k8s.io/yaml"

	manifests "github.com/weft-dev/weft/config"
)

// shipped reads the config maps that an installation begins with.
func shipped(t *testing.T) map[string]*corev1.ConfigMap {
	t.Helper()
	files, err := fs.Glob(manifests.Core, "core/config-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	maps := map[string]*corev1.ConfigMap{}
	for _, file := range files {
		data, err := fs.ReadFile(manifests.Core, file)
		if err != nil {
			t.Fatal(err)
		}
		var c corev1.ConfigMap
		if err := yaml.UnmarshalStrict(data, &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if want := strings.TrimSuffix(path.Base(file), ".yaml"); c.Name != want || c.Namespace != Namespace {
			t.Errorf("%s holds %s/%s", file, c.Namespace, c.Name)
		}
		maps[c.Name] = &c
	}
	return maps
}

// TestShippedExamples makes sure that each config map that is read is shipped, that it configures nothing, that its example shows
// the defaults, and that admission will notice an edit of the example.
func TestShippedExamples(t *testing.T) {
	t.Parallel()
	maps := shipped(t)
	for _, name := range append(Names(), LeaderElectionName, LoggingName) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, ok := maps[name]
			if !ok {
				t.Fatal("not shipped")
			}
			example := c.Data[exampleKey]
			if len(c.Data) != 1 || example == "" {
				t.Errorf("data has other keys than the example: %v", c.Data)
			}
			if got, want := c.Annotations[configmap.ExampleChecksumAnnotation], configmap.Checksum(example); got != want {
				t.Errorf("checksum %q, want %q", got, want)
			}
			data := map[string]string{}
			if err := yaml.UnmarshalStrict([]byte(example), &data); err != nil {
				t.Fatal(err)
			}
			if err := Validate(name, data); err != nil {
				t.Errorf("the example is not valid: %v", err)
			}
			if !slices.Contains(Names(), name) {
				return
			}
			s, err := Parse(map[string]map[string]string{name: data}, Domains{})
			if err != nil {
				t.Fatal(err)
			}
			want := Default(Domains{})
			// How often metrics are exported is left to the exporter by default, and that is 60 s.
			s.Observability.Metrics.Interval, s.Observability.RequestMetrics.Interval = 0, 0
			if diff := cmp.Diff(want, s, sameTemplates(), cmpopts.IgnoreUnexported(Snapshot{}),
				cmp.AllowUnexported(Deployment{}, Domain{}, Network{})); diff != "" {
				t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
			}
		})
	}
}

// TestEveryKeyIsExplained makes sure that the page on compatibility says of every key what it does.
func TestEveryKeyIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/knative.md")
	if err != nil {
		t.Fatal(err)
	}
	// Keys that are shown without being set are in comments.
	key := regexp.MustCompile(`(?m)^(?:# )?([a-z][a-z0-9.-]+):`)
	for name, c := range shipped(t) {
		if name == DomainName {
			continue // its keys are domains
		}
		for _, found := range key.FindAllStringSubmatch(c.Data[exampleKey], -1) {
			if k := found[1]; !strings.HasPrefix(k, "loglevel.") && !strings.Contains(string(page), "`"+k+"`") {
				t.Errorf("docs/knative.md does not explain %s of %s", k, name)
			}
		}
	}
}

func sameTemplates() cmp.Option {
	return cmp.Comparer(func(a, b *template.Template) bool { return a.Root.String() == b.Root.String() })
}
