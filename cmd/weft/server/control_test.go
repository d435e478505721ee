package server

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// TestServeControl starts on a socket that a killed process left, answers, and ends at once although a stream is open.
func TestServeControl(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "control.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveControl(ctx, path, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
	}()

	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("socket has mode %o, want 600", got)
	}

	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("serveControl: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("serveControl waits for a stream that never ends")
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream has outlived the server")
	}
}
