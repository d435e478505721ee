package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"github.com/weft-dev/weft/autoscaler/scale"
)

var update = flag.Bool("update", false, "renew the expected output in testdata")

// now is when the situations of testdata are looked at.
var now = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// world is a Cluster of objects that a test has written down.
type world struct {
	client.Reader
	logs map[string]string
	load *scale.Insight
}

func (w *world) Log(_ context.Context, pod client.ObjectKey, container string, _ bool, _ int64) (string, error) {
	return w.logs[pod.Name+"/"+container], nil
}

func (w *world) Load(context.Context, client.ObjectKey) *scale.Insight { return w.load }

// TestSituations explains the situations of testdata/*.txtar. The comment of an archive is the question, `weft explain TYPE/NAME`
// with its flags. objects.yaml changes the healthy service of testdata/base.yaml: each document is merged into the object of its kind
// and name, or added; one with `absent: true` takes the object away. pods/CONTAINER is a log, load.json what the autoscaler
// measures, and want the expected answer.
func TestSituations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 25 {
		t.Fatalf("found %d situations, %v; want 25 or more", len(files), err)
	}
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := answer(t, archive, base)
			for i := range archive.Files {
				f := &archive.Files[i]
				if f.Name != "want" {
					continue
				}
				if *update {
					f.Data = []byte(got)
					if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
						t.Fatal(err)
					}
					return
				}
				if diff := cmp.Diff(string(f.Data), got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				return
			}
			t.Error("the situation expects nothing: add a file named want")
		})
	}
}

// answer explains one situation and returns what the command prints.
func answer(t *testing.T, archive *txtar.Archive, base []byte) string {
	t.Helper()
	w := &world{logs: map[string]string{}}
	changes := []byte{}
	for _, f := range archive.Files {
		switch {
		case f.Name == "objects.yaml":
			changes = f.Data
		case f.Name == "load.json":
			w.load = &scale.Insight{}
			if err := json.Unmarshal(f.Data, w.load); err != nil {
				t.Fatal(err)
			}
		case strings.HasPrefix(f.Name, "logs/"):
			w.logs[strings.TrimPrefix(f.Name, "logs/")] = string(f.Data)
		}
	}
	w.Reader = fakeReader(t, merged(t, documents(t, base), documents(t, changes)))

	fields := strings.Fields(string(archive.Comment))[3:]
	all := len(fields) > 1 && fields[len(fields)-1] == "--all"
	if all {
		fields = fields[:len(fields)-1]
	}
	target, err := ParseTarget(fields, "default")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Read(t.Context(), w, target, "kubectl")
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var out bytes.Buffer
	if err := Explain(objects, now).Print(&out, now, all); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// documents splits YAML into objects.
func documents(t *testing.T, data []byte) []map[string]any {
	t.Helper()
	var out []map[string]any
	for part := range strings.SplitSeq("\n"+string(data), "\n---") {
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(part), &object); err != nil {
			t.Fatalf("%v in:\n%s", err, part)
		}
		if len(object) > 0 {
			out = append(out, object)
		}
	}
	return out
}

// merged applies changes to objects, as JSON merge patches.
func merged(t *testing.T, objects, changes []map[string]any) []map[string]any {
	t.Helper()
	identity := func(o map[string]any) string {
		u := unstructured.Unstructured{Object: o}
		return u.GetAPIVersion() + "/" + u.GetKind() + "/" + u.GetNamespace() + "/" + u.GetName()
	}
	for _, change := range changes {
		done := false
		for i, object := range objects {
			if identity(object) != identity(change) {
				continue
			}
			done = true
			if change["absent"] == true {
				objects = append(objects[:i:i], objects[i+1:]...)
				break
			}
			objects[i] = patched(t, object, change)
			break
		}
		if !done {
			objects = append(objects, change)
		}
	}
	return objects
}

func patched(t *testing.T, object, change map[string]any) map[string]any {
	t.Helper()
	before, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := json.Marshal(change)
	if err != nil {
		t.Fatal(err)
	}
	after, err := jsonpatch.MergePatch(before, patch)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(after, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func fakeReader(t *testing.T, objects []map[string]any) client.Reader {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	builder := fake.NewClientBuilder().WithScheme(scheme)
	for _, o := range objects {
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{Object: o}
		typed, err := scheme.New(u.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		// A field that does not exist would test nothing.
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(typed); err != nil {
			t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
		}
		builder = builder.WithObjects(typed.(client.Object))
	}
	return builder.Build()
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		want string
		fail string
	}{
		{name: "type and name", args: []string{"ksvc/hello"}, want: "service/hello"},
		{name: "two arguments", args: []string{"revision", "hello-00001"}, want: "revision/hello-00001"},
		{name: "plural", args: []string{"routes/hello"}, want: "route/hello"},
		{name: "with its group", args: []string{"service.serving.knative.dev/hello"}, want: "service/hello"},
		{name: "upper case", args: []string{"Pod/hello"}, want: "pod/hello"},
		{name: "a domain", args: []string{"dm/www.example.com"}, want: "domainmapping/www.example.com"},
		{name: "a name alone", args: []string{"hello"}, want: "service/hello"},
		{name: "unknown type", args: []string{"node/n"}, fail: `type "node" cannot be explained`},
		{name: "no name", args: []string{"ksvc/"}, fail: "one object is needed"},
		{name: "two slashes", args: []string{"ksvc/a/b"}, fail: "one object is needed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseTarget(tt.args, "default")
			if tt.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fail) {
					t.Fatalf("error is %v, want %q", err, tt.fail)
				}
				return
			}
			if err != nil || got.String() != tt.want || got.Namespace != "default" {
				t.Errorf("ParseTarget is %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestReportIsJSON(t *testing.T) {
	t.Parallel()
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Reader: fakeReader(t, documents(t, base))}
	objects, err := Read(t.Context(), w, Target{Kind: Service, Namespace: "default", Name: "hello"}, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(Explain(objects, now))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got["state"] != "ok" || got["object"] != "service/hello" || len(got["links"].([]any)) != 7 {
		t.Errorf("the report in JSON is %s", data)
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", -time.Hour: "0s", 59 * time.Second: "59s", 90 * time.Second: "1m30s", 2 * time.Hour: "2h", 49*time.Hour + 3*time.Second: "2d1h",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%s) is %q, want %q", d, got, want)
		}
	}
}
