package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ociv1 "github.com/google/go-containerregistry/pkg/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"github.com/weft-dev/weft/node/container/containertest"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/object"
	"github.com/weft-dev/weft/node/sandbox"
)

const testDeadline = 15 * time.Second

// harness is a worker with fakes of everything that it reaches.
type harness struct {
	t         *testing.T
	client    *fake.Clientset
	runtime   *containertest.Fake
	images    *fakeImages
	sandboxes *fakeSandboxes
	events    *record.FakeRecorder
	options   Options
	pod       *v1.Pod
}

// newHarness returns a harness for a pod; prepare changes the API in memory before anything uses it.
func newHarness(t *testing.T, pod *v1.Pod, prepare ...func(*fake.Clientset)) *harness {
	t.Helper()
	h := &harness{
		t: t, client: fake.NewClientset(pod), runtime: &containertest.Fake{}, images: &fakeImages{}, sandboxes: &fakeSandboxes{},
		events: record.NewFakeRecorder(1000), pod: pod,
	}
	for _, f := range prepare {
		f(h.client)
	}
	objects := object.New(object.Options{Client: h.client})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = objects.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	h.options = Options{
		Client: h.client, Images: h.images, Sandboxes: h.sandboxes, Runtime: h.runtime, Objects: objects, Tokens: fakeTokens{},
		Events: h.events, Root: t.TempDir(), LogRoot: t.TempDir(), HostIP: "10.9.0.1", CPUs: 2, MemoryBytes: 1 << 30,
		BackoffBase: 40 * time.Millisecond, BackoffMax: time.Second, StatusDelay: 200 * time.Millisecond,
	}
	return h
}

// run runs a worker until the test ends or stop is called.
func (h *harness) run(w *Worker) (done <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	stop = func() { cancel(); <-ended }
	h.t.Cleanup(stop)
	return ended, stop
}

// start runs a new worker for the harness's pod.
func (h *harness) start() *Worker {
	w := New(h.options, h.pod, nil)
	h.run(w)
	return w
}

// await polls until cond is true; the fakes have no way to wait for a state.
func (h *harness) await(what string, cond func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), testDeadline)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			h.t.Fatalf("%s did not happen; status: %+v", what, h.status())
		case <-tick.C:
		}
	}
}

func (h *harness) status() v1.PodStatus {
	p, err := h.client.CoreV1().Pods(h.pod.Namespace).Get(h.t.Context(), h.pod.Name, metav1.GetOptions{})
	if err != nil {
		return v1.PodStatus{}
	}
	return p.Status
}

func (h *harness) gone() bool {
	_, err := h.client.CoreV1().Pods(h.pod.Namespace).Get(h.t.Context(), h.pod.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}

// waiting is the reason for which the first container waits.
func (h *harness) waiting() string {
	s := h.status()
	if len(s.ContainerStatuses) == 0 || s.ContainerStatuses[0].State.Waiting == nil {
		return ""
	}
	return s.ContainerStatuses[0].State.Waiting.Reason
}

func (h *harness) ready() bool { s := h.status(); return isReady(&s) }

// statusWrites counts the patches of the status.
func (h *harness) statusWrites() int {
	n := 0
	for _, a := range h.client.Actions() {
		if a.Matches("patch", "pods/status") || a.Matches("patch", "pods") && a.GetSubresource() == "status" {
			n++
		}
	}
	return n
}

// recorded takes the events so far.
func (h *harness) recorded() []string {
	var out []string
	for {
		select {
		case e := <-h.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func (h *harness) awaitEvent(part string) {
	h.t.Helper()
	var seen []string
	h.await("event "+part, func() bool {
		seen = append(seen, h.recorded()...)
		return slices.ContainsFunc(seen, func(e string) bool { return strings.Contains(e, part) })
	})
}

func testPod(change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello", UID: types.UID("uid-1"), ResourceVersion: "1", Generation: 1},
		Spec: v1.PodSpec{
			NodeName: "node", RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: new(int64(5)),
			EnableServiceLinks: new(true),
			Containers:         []v1.Container{{Name: "app", Image: "example.com/app:1", ImagePullPolicy: v1.PullIfNotPresent}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// fakeImages has every image unless it is told otherwise.
type fakeImages struct {
	// mu guards everything below.
	mu      sync.Mutex
	missing bool
	pullErr error
	pulls   int
	config  ociv1.Config
}

func (f *fakeImages) set(change func(*fakeImages)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeImages) pulled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pulls
}

func (f *fakeImages) image(ref string) image.Image {
	config := f.config
	if config.Entrypoint == nil {
		config.Entrypoint = []string{"/app"}
	}
	return image.Image{Name: ref, ID: "sha256:abc", Config: config, Layers: []string{"/layer"}}
}

func (f *fakeImages) Resolve(_ context.Context, ref string) (image.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case strings.Contains(ref, "!"):
		return image.Image{}, fmt.Errorf("%w: %s", image.ErrInvalidName, ref)
	case f.missing && image.IsLocal(ref):
		return image.Image{}, fmt.Errorf("%w: %s", image.ErrNeverPull, ref)
	case f.missing:
		return image.Image{}, image.ErrNotFound
	}
	return f.image(ref), nil
}

func (f *fakeImages) Pull(_ context.Context, ref string, _ image.PullOptions) (image.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pulls++
	if f.pullErr != nil {
		return image.Image{}, f.pullErr
	}
	return f.image(ref), nil
}

// fakeSandboxes gives every pod the same address.
type fakeSandboxes struct {
	// mu guards everything below.
	mu       sync.Mutex
	acquired map[string]bool
}

func (f *fakeSandboxes) Acquire(ctx context.Context, id string) (*sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.acquired == nil {
		f.acquired = map[string]bool{}
	}
	f.acquired[id] = true
	return &sandbox.Sandbox{ID: id, Address: netip.MustParseAddr("127.0.0.1"), NetNS: "/run/netns/" + id}, nil
}

func (f *fakeSandboxes) Release(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.acquired, id)
	return nil
}

func (f *fakeSandboxes) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acquired)
}

type fakeTokens struct{}

func (fakeTokens) Token(
	_ context.Context, _, account string, _ *authenticationv1.TokenRequest,
) (*authenticationv1.TokenRequest, error) {
	if account == "" {
		return nil, errors.New("no account")
	}
	return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
		Token: "token-of-" + account, ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
	}}, nil
}
