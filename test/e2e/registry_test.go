package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func TestImageFromAPrivateRegistry(t *testing.T) {
	t.Parallel()
	u := newUser(t, shared)
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="tests"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	reference, err := name.ParseReference(host + "/private/server:v1")
	if err != nil {
		t.Fatal(err)
	}
	img := serverAsImage(t)
	if err := remote.Write(reference, img, remote.WithAuth(&authn.Basic{Username: "me", Password: "secret"})); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}

	// Without credentials the reason reaches the Service.
	u.createImageService("refused", reference.String())
	u.waitCondition("refused", apis.ConditionReady, corev1.ConditionFalse, "Unable to fetch image")

	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"username": "me", "password": "secret"}}})
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "registry", Namespace: u.namespace}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: config},
	}
	if err := u.Kube.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	for service, image := range map[string]string{"by-tag": reference.String(), "by-digest": reference.Context().Digest(digest.String()).String()} {
		u.createImageService(service, image, func(s *servingv1.Service) {
			s.Spec.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
		})
		if got, want := u.mustGet(u.waitReady(service).Status.URL, "/"), service+"-00001 \n"; got != want {
			t.Errorf("%s answered %q, want %q", service, got, want)
		}
		revision := &servingv1.Revision{}
		if err := u.Kube.Get(t.Context(), keyOf(u.namespace, service+"-00001"), revision); err != nil {
			t.Fatal(err)
		}
		if len(revision.Status.ContainerStatuses) != 1 || !strings.HasSuffix(revision.Status.ContainerStatuses[0].ImageDigest, digest.String()) {
			t.Errorf("%s: the revision shows %+v, want digest %s", service, revision.Status.ContainerStatuses, digest)
		}
	}
}

func (u *user) createImageService(service, image string, options ...option) {
	u.Helper()
	s := u.service(service, options...)
	s.Spec.Template.Spec.Containers[0].Image = image
	if err := u.Kube.Create(u.Context(), s); err != nil {
		u.Fatal(err)
	}
}

// serverAsImage packs the test server into an image of one layer.
func serverAsImage(t *testing.T) v1.Image {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "server")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", binary, "./server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "server", Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config.Entrypoint = "linux", runtime.GOARCH, []string{"/server"}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}
