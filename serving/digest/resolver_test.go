package digest

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/servingtest"
)

// memory is a registry that is reached without a network, so that a test can run on virtual time.
type memory struct {
	handler http.Handler
	// user is asked for when set.
	user  string
	asked atomic.Int64
}

func newMemory() *memory {
	return &memory{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

// RoundTrip implements http.RoundTripper.
func (m *memory) RoundTrip(req *http.Request) (*http.Response, error) {
	m.asked.Add(1)
	recorder := httptest.NewRecorder()
	if user, _, _ := req.BasicAuth(); user != m.user {
		recorder.Header().Set("WWW-Authenticate", "Basic")
		recorder.WriteHeader(http.StatusUnauthorized)
	} else {
		if req.Body == nil {
			req.Body = http.NoBody
		}
		m.handler.ServeHTTP(recorder, req)
	}
	response := recorder.Result()
	response.Request = req
	return response, nil
}

// push stores an image and returns its digest.
func (m *memory) push(t *testing.T, image string) string {
	t.Helper()
	tag, err := name.NewTag(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, empty.Image, remote.WithTransport(m), remote.WithAuth(&authn.Basic{Username: m.user, Password: "secret"})); err != nil {
		t.Fatal(err)
	}
	digest, err := empty.Image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return tag.Repository.String() + "@" + digest.String()
}

// revision returns one with containers of these images.
func revision(images ...string) *servingv1.Revision {
	r := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "hello-00001", UID: "uid"}}
	for i, image := range images {
		r.Spec.Containers = append(r.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Image: image})
	}
	return r
}

// run starts a resolver in a bubble of virtual time, and stops it before test's bubble ends.
func run(t *testing.T, o Options, objects []client.Object, test func(r *Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Reader = servingtest.New(t, nil, objects...).Store
		o.Config = func() *config.Snapshot { return config.Default(config.Domains{}) }
		r := New(o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Start(ctx) }()
		test(r)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Start: %v", err)
		}
	})
}

func TestResolve(t *testing.T) {
	t.Parallel()
	const pinned = "example.com/hello@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	m := newMemory()
	hello := m.push(t, "example.com/hello:1")
	tests := []struct {
		name   string
		images []string
		want   []servingv1.ContainerStatus
		asks   bool
	}{
		{name: "a tag", images: []string{"example.com/hello:1"}, want: []servingv1.ContainerStatus{{Name: "a", ImageDigest: hello}}, asks: true},
		{name: "a digest", images: []string{pinned}, want: []servingv1.ContainerStatus{{Name: "a", ImageDigest: pinned}}},
		{name: "a registry to skip", images: []string{"dev.local/hello"}, want: []servingv1.ContainerStatus{{Name: "a"}}},
		{name: "an image that is here", images: []string{"example.com/imported"}, want: []servingv1.ContainerStatus{{Name: "a"}}},
		{
			name: "several", images: []string{"dev.local/hello", "example.com/hello:1", pinned}, asks: true,
			want: []servingv1.ContainerStatus{{Name: "a"}, {Name: "b", ImageDigest: hello}, {Name: "c", ImageDigest: pinned}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := Options{Transport: m, Present: func(image string) bool { return image == "example.com/imported" }}
			run(t, o, nil, func(r *Resolver) {
				rev := revision(tt.images...)
				got, _, ready, err := r.Resolve(rev)
				if ready == tt.asks || err != nil {
					t.Fatalf("the first answer is ready=%v, %v, want ready=%v", ready, err, !tt.asks)
				}
				if tt.asks {
					changed := <-r.Changes()
					if changed.Object.GetName() != rev.Name || changed.Object.GetNamespace() != rev.Namespace {
						t.Errorf("announced %v, want the revision", changed.Object)
					}
					got, _, ready, err = r.Resolve(rev)
				}
				if !ready || err != nil {
					t.Fatalf("the answer is ready=%v, %v", ready, err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("statuses (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestResolveAgain(t *testing.T) {
	t.Parallel()
	m := newMemory()
	rev := revision("example.com/late")
	run(t, Options{Transport: m}, []client.Object{rev.DeepCopy()}, func(r *Resolver) {
		_, _, _, _ = r.Resolve(rev)
		<-r.Changes()
		_, _, ready, err := r.Resolve(rev)
		const want = `Unable to fetch image "example.com/late": failed to resolve image to digest: `
		if ready || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("resolving a missing image: ready=%v, %v, want an error that starts with %q", ready, err, want)
		}
		m.push(t, "example.com/late")
		<-r.Changes()
		if _, _, ready, err := r.Resolve(rev); !ready || err != nil {
			t.Errorf("after the image was pushed: ready=%v, %v", ready, err)
		}
		r.Forget(client.ObjectKeyFromObject(rev))
		if len(r.entries) != 0 {
			t.Errorf("%d revisions are remembered, want none", len(r.entries))
		}
	})
}

func TestDeletedRevisionIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	m := newMemory()
	run(t, Options{Transport: m}, nil, func(r *Resolver) {
		_, _, _, _ = r.Resolve(revision("example.com/none"))
		<-r.Changes()
		asked := m.asked.Load()
		<-time.After(time.Hour) // of virtual time
		synctest.Wait()
		if got := m.asked.Load(); got != asked {
			t.Errorf("the registry was asked %d times for a revision that is gone", got-asked)
		}
	})
}

func TestPullSecrets(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.user = "somebody"
	want := m.push(t, "example.com/private")
	account := &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: "default"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "of-account"}, {Name: "missing"}},
	}
	secret := func(name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: servingtest.Namespace, Name: name}}
	}
	var used []string
	o := Options{Transport: m, Keychain: func(secrets []corev1.Secret) (authn.Keychain, error) {
		for i := range secrets {
			used = append(used, secrets[i].Name)
		}
		return keychain{authn.FromConfig(authn.AuthConfig{Username: "somebody", Password: "secret"})}, nil
	}}
	run(t, o, []client.Object{account, secret("of-account"), secret("of-revision")}, func(r *Resolver) {
		rev := revision("example.com/private")
		rev.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "of-revision"}}
		_, _, _, _ = r.Resolve(rev)
		<-r.Changes()
		got, _, _, err := r.Resolve(rev)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]servingv1.ContainerStatus{{Name: "a", ImageDigest: want}}, got); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"of-revision", "of-account"}, used); diff != "" {
			t.Errorf("secrets (-want +got):\n%s", diff)
		}
	})
}

type keychain struct{ authn.Authenticator }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) { return k.Authenticator, nil }
