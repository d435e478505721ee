package e2e

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
	"knative.dev/pkg/apis"
)

// trafficTemplate prints the traffic of a service as "tag,revision,percent,latest" of each target.
const trafficTemplate = `jsonpath={range .status.traffic[*]}{.tag},{.revisionName},{.percent},{.latestRevision};{end}`

// TestKn runs testdata/kn/*.txtar: what Knative's own client does and prints. Each script has a namespace of its own.
func TestKn(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/kn/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	if _, err := os.Stat(filepath.Join(shared.Bin, "kn")); err != nil {
		t.Fatalf("no kn binary, run `make kn` first: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			u := newUser(t, shared)
			images := &scriptImages{}
			if text, err := os.ReadFile(script); err != nil {
				t.Fatal(err)
			} else if strings.Contains(string(text), "\npush ") {
				images.server = serverAsImage(t)
			}
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Setup: u.setUpScript,
				Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
					"kn":      u.program(filepath.Join(u.Bin, "kn")),
					"kubectl": u.program(filepath.Join(u.Bin, "weft"), "kubectl", "--namespace", u.namespace),
					"get":     u.scriptGet,
					"push":    images.push,
					"claim":   u.scriptClaim,
				},
			})
		})
	}
}

// setUpScript gives a script a kubeconfig with its namespace.
func (u *user) setUpScript(env *testscript.Env) error {
	config, err := clientcmd.LoadFromFile(filepath.Join(u.StateDir, "kubeconfig"))
	if err != nil {
		return err
	}
	config.Contexts[config.CurrentContext].Namespace = u.namespace
	kubeconfig := filepath.Join(env.WorkDir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		return err
	}
	env.Setenv("KUBECONFIG", kubeconfig)
	env.Setenv("WEFT_STATE_DIR", u.StateDir)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("PATH", u.Bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("IMAGE", serverImage)
	env.Setenv("NS", u.namespace)
	env.Setenv("PORT", fmt.Sprint(u.HTTPPort))
	env.Setenv("TRAFFIC", trafficTemplate)
	return nil
}

// program is a command of a script that runs a program with what the script says behind args.
func (u *user) program(path string, args ...string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, more []string) {
		err := ts.Exec(path, append(slices.Clip(args), more...)...)
		switch {
		case err == nil && neg:
			ts.Fatalf("it succeeded, want an error")
		case err != nil && !neg:
			ts.Fatalf("%v", err)
		}
	}
}

// scriptGet sends a GET through the gateway and prints status and body.
func (u *user) scriptGet(ts *testscript.TestScript, _ bool, args []string) {
	target, err := url.Parse(args[0])
	ts.Check(err)
	a, err := u.get(&apis.URL{Scheme: target.Scheme, Host: target.Host}, target.Path)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d %s", a.status, a.body)
}

// scriptClaim gives a domain to the script's namespace.
func (u *user) scriptClaim(ts *testscript.TestScript, _ bool, args []string) {
	claim := newClaim(args[0], u.namespace)
	ts.Check(u.Kube.Create(u.Context(), claim))
	ts.Defer(func() { _ = u.Kube.Delete(context.WithoutCancel(u.Context()), claim) })
}

// scriptImages are what a script can push.
type scriptImages struct{ server v1.Image }

// push pushes the test server as args[0], a name with a tag, to a registry that lives as long as the script. The image carries the label
// args[1], so that its digest differs from that of others. $REGISTRY becomes the registry's host, $DIGEST_<label> the digest.
func (i *scriptImages) push(ts *testscript.TestScript, _ bool, args []string) {
	if ts.Getenv("REGISTRY") == "" {
		server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
		ts.Defer(server.Close)
		ts.Setenv("REGISTRY", strings.TrimPrefix(server.URL, "http://"))
	}
	reference, err := name.ParseReference(ts.Getenv("REGISTRY") + "/" + args[0])
	ts.Check(err)
	file, err := i.server.ConfigFile()
	ts.Check(err)
	file = file.DeepCopy()
	file.Config.Labels = map[string]string{"label": args[1]}
	labelled, err := mutate.ConfigFile(i.server, file)
	ts.Check(err)
	ts.Check(remote.Write(reference, labelled))
	digest, err := labelled.Digest()
	ts.Check(err)
	ts.Setenv("DIGEST_"+args[1], digest.String())
}
