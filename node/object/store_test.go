package object

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

func configMap(version, value string) *v1.ConfigMap {
	return &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "cm", UID: "u", ResourceVersion: version}, Data: map[string]string{"k": value},
	}
}

// newStore runs a store until the test ends.
func newStore(t *testing.T, client *fake.Clientset, linger time.Duration) *Store {
	t.Helper()
	s := New(Options{Client: client, Linger: linger})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// lists counts how often the API was asked for a kind.
func lists(client *fake.Clientset, resource string) int {
	n := 0
	for _, a := range client.Actions() {
		if a.Matches("list", resource) {
			n++
		}
	}
	return n
}

func TestStoreFollowsAnObject(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	// The API in memory has no history: an event before the watch is open would be lost.
	opened := make(chan struct{}, 1)
	client.PrependWatchReactor("configmaps", func(a kubetesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		opened <- struct{}{}
		return true, w, err
	})
	s := newStore(t, client, time.Minute)
	changed := make(chan struct{}, 10)
	defer s.WatchConfigMap("ns", "cm", func() { changed <- struct{}{} })()
	if _, err := s.ConfigMap(t.Context(), "ns", "cm"); !apierrors.IsNotFound(err) || err.Error() != `configmaps "cm" not found` {
		t.Fatalf("error %v, want not found", err)
	}
	api := client.CoreV1().ConfigMaps("ns")
	value := func() string {
		<-changed
		cm, err := s.ConfigMap(t.Context(), "ns", "cm")
		if err != nil {
			return err.Error()
		}
		return cm.Data["k"]
	}
	<-opened
	if _, err := api.Create(t.Context(), configMap("2", "one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := value(); got != "one" {
		t.Errorf("after creation %q", got)
	}
	if _, err := api.Update(t.Context(), configMap("3", "two"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := value(); got != "two" {
		t.Errorf("after the update %q", got)
	}
	if err := api.Delete(t.Context(), "cm", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := value(); got != `configmaps "cm" not found` {
		t.Errorf("after the deletion %q", got)
	}
}

func TestStoreAsksOnce(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(configMap("1", "one"), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}})
	s := newStore(t, client, time.Minute)
	for range 3 {
		if _, err := s.ConfigMap(t.Context(), "ns", "cm"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Secret(t.Context(), "ns", "s"); err != nil {
			t.Fatal(err)
		}
	}
	if n, m := lists(client, "configmaps"), lists(client, "secrets"); n != 1 || m != 1 {
		t.Errorf("the API was asked %d and %d times, want once each", n, m)
	}
}

func TestStoreForgetsWhatNobodyUses(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(configMap("1", "one"))
	s := newStore(t, client, 10*time.Millisecond)
	release := s.WatchConfigMap("ns", "cm", func() {})
	if _, err := s.ConfigMap(t.Context(), "ns", "cm"); err != nil {
		t.Fatal(err)
	}
	entries := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.entries)
	}
	s.sweep(time.Now().Add(time.Hour))
	if entries() != 1 {
		t.Fatal("an object in use was forgotten")
	}
	release()
	s.sweep(time.Now().Add(time.Hour))
	if entries() != 0 {
		t.Error("an unused object was kept")
	}
}

func TestServicesWaitForTheFirstList(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc"}})
	s := newStore(t, client, time.Minute)
	list, err := s.Services(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "svc" {
		t.Errorf("services %v, %v", list, err)
	}
	stopped := New(Options{Client: client})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := stopped.Services(ctx); err == nil {
		t.Error("services of a store that does not run were not waited for")
	}
}

func TestGetEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &entry{key: key{kind: &kind{resource: v1.Resource("secrets")}, namespace: "ns", name: "s"}, read: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.get(ctx); err == nil {
			t.Error("an object that was never read was returned")
		}
	})
}
