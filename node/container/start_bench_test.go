package container_test

import (
	"context"
	"fmt"
	"io"
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

// BenchmarkExec measures what an exec probe costs.
func BenchmarkExec(b *testing.B) {
	i := newInstance(b)
	r := newRuntime(b, i)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	startProgram(b, r, i, "a", "wait", "0")
	for b.Loop() {
		if code, err := r.Exec(b.Context(), "a", container.ExecOptions{Args: []string{"/program", "exit", "0"}, Stdout: io.Discard}); code != 0 || err != nil {
			b.Fatal(code, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
