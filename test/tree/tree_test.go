package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/weft-dev/weft/"

// listed is the part of `go list -json` that the tests read.
type listed struct {
	ImportPath string
	Name       string
	Doc        string
	GoFiles    []string
	Deps       []string
}

// packages lists this module's packages once for all tests. It asks the go command, which knows build tags and go:embed.
var packages = sync.OnceValues(func() ([]listed, error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Doc,GoFiles,Deps", module+"...").Output()
	if err != nil {
		return nil, err
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func mustPackages(t *testing.T) []listed {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatalf("listing packages: %v", err)
	}
	if len(all) < 20 {
		t.Fatalf("listing packages: found only %d", len(all))
	}
	return all
}

func TestEveryPackageIsDocumented(t *testing.T) {
	t.Parallel()
	for _, p := range mustPackages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(p.Doc, want) && (p.Name != "main" || p.Doc == "") {
			t.Errorf("%s: the package comment must start with %q and say what the package does, who calls it and what it must not import", p.ImportPath, want)
		}
	}
}

// wall forbids packages below from to reach packages below to, directly or through others.
type wall struct {
	name   string
	from   []string
	except []string
	to     []string
	reason string
}

var dataPlane = []string{
	"mesh/proxy", "mesh/engine", "mesh/message", "mesh/http1", "mesh/filter", "mesh/balance", "mesh/dns", "mesh/capture",
	"mesh/telemetry", "mesh/config", "mesh/certificate", "mesh/distribute/client", "activator", "cmd/proxy",
}

func walls() []wall {
	return []wall{
		{
			name: "the data plane knows no Kubernetes client", from: dataPlane,
			to:     []string{"k8s.io/client-go", "k8s.io/api", "sigs.k8s.io/controller-runtime", "knative.dev/"},
			reason: "a proxy must stay small and must serve without an API server; its configuration arrives as mesh resources",
		},
		{
			name: "the data plane knows neither serving nor autoscaler", from: dataPlane,
			to:     []string{module + "serving", module + "autoscaler", module + "node", module + "embedded"},
			reason: "decisions belong to the control plane; the data plane carries them out",
		},
		{
			name: "only the embedded control plane is Kubernetes itself", from: []string{""}, except: []string{"embedded", "cmd/weft"},
			to:     []string{"k8s.io/kubernetes"},
			reason: "it takes minutes to build and must never be needed on a cluster that has its own",
		},
		{
			name: "the shim is tiny", from: []string{"cmd/shim"},
			to:     []string{"net/http", "k8s.io/", "google.golang.org/"},
			reason: "one shim runs per container; each megabyte counts once per instance",
		},
		{
			name: "commands are not imported", from: []string{""}, except: []string{"cmd"},
			to:     []string{module + "cmd/"},
			reason: "a command reads flags and calls Run; what others need belongs into a package",
		},
		{
			name: "nothing asks where it runs", from: []string{"serving", "autoscaler", "mesh", "activator"},
			to:     []string{module + "embedded", module + "node"},
			reason: "the same code runs on one machine and on any cluster; the embedded mode is only a faster node",
		},
	}
}

func below(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		if p == "" || strings.HasSuffix(p, "/") {
			return strings.HasPrefix(path, p)
		}
		return path == p || strings.HasPrefix(path, p+"/")
	})
}

func TestImportWalls(t *testing.T) {
	t.Parallel()
	all := mustPackages(t)
	for _, w := range walls() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			checked := 0
			for _, p := range all {
				path := strings.TrimPrefix(p.ImportPath, module)
				if !below(path, w.from) || (w.except != nil && below(path, w.except)) || below(path, []string{"test", "bench", "samples"}) {
					continue
				}
				checked++
				for _, dep := range p.Deps {
					if below(dep, w.to) && !below(dep, []string{p.ImportPath}) {
						t.Errorf("%s reaches %s: %s", path, dep, w.reason)
					}
				}
			}
			for _, folder := range slices.Concat(w.from, w.except) {
				if !slices.ContainsFunc(all, func(p listed) bool { return below(strings.TrimPrefix(p.ImportPath, module), []string{folder}) }) {
					t.Errorf("there is no package below %q: the wall's folders have moved", folder)
				}
			}
			if checked == 0 {
				t.Error("no package was checked")
			}
		})
	}
}
