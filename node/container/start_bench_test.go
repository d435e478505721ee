package container_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/weft-dev/weft/node/container"
)

// BenchmarkStart measures the part of a cold start that this package is responsible for: from Start to a running process.
func BenchmarkStart(b *testing.B) {
	i := newInstance(b)
	r := newRuntime(b, i)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	for n := 0; b.Loop(); n++ {
		id := fmt.Sprint("c", n)
		spec := container.Spec{
			ID: id, Layers: []string{layer()}, LogPath: i.Path(id + ".log"), Process: container.Process{Args: []string{"/program", "wait", "0"}},
		}
		if _, err := r.Start(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := r.Delete(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
