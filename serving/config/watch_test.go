package config

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
)

// TestWatcher edits a config map as an administrator does and waits for what comes into force.
func TestWatcher(t *testing.T) {
	t.Parallel()
	clients := fake.NewClientset()
	recorder := events.NewFakeRecorder(10)
	store := NewStore(Options{Logger: slog.New(slog.DiscardHandler)})
	changes := store.Changes(AutoscalerName)
	w := &watcher{store: store, clients: clients, recorder: recorder}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- w.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("Start: %v", err)
		}
	})

	api := clients.CoreV1().ConfigMaps(Namespace)
	write := func(data map[string]string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: AutoscalerName}, Data: data}
	}
	awaitWindow := func(want time.Duration) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatal("no change was announced")
		}
		if got := store.Load().Autoscaler.StableWindow; got != want {
			t.Errorf("stable window %v, want %v", got, want)
		}
	}
	if _, err := api.Create(ctx, write(map[string]string{"stable-window": "20s"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitWindow(20 * time.Second)

	if _, err := api.Update(ctx, write(map[string]string{"stable-window": "never"}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case note := <-recorder.Events:
		if !strings.Contains(note, "InvalidConfiguration") || !strings.Contains(note, "stable-window") {
			t.Errorf("event %q does not name the key", note)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no event tells of the mistake")
	}
	if got := store.Load().Autoscaler.StableWindow; got != 20*time.Second {
		t.Errorf("a mistake changed the stable window to %v", got)
	}

	if err := api.Delete(ctx, AutoscalerName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitWindow(time.Minute)
}
