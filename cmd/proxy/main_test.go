package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	control := "--control=unix:///run/c.sock"
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"least", []string{control, "--node=n"}, ""},
		{"all", []string{
			control, "--node=n", "--admin-socket=/a", "--metrics-address=127.0.0.1:1", "--gateway-address=10.0.0.1",
			"--dns-address=10.0.0.1:53,127.0.0.1:5353", "--capture-tcp=10.0.0.1:15001", "--log-level=debug", "--drain-timeout=1s",
		}, ""},
		{"no control plane", nil, "--control is required"},
		{"no node", []string{control, "--node="}, "--node is required"},
		{"gateway", []string{control, "--gateway-address=x"}, "--gateway-address"},
		{"address", []string{control, "--gateway-address=10.0.0.1", "--dns-address=10.0.0.1:53,x"}, "--dns-address"},
		{"capture without gateway", []string{control, "--capture-tcp=10.0.0.1:1"}, "need --gateway-address"},
		{"port", []string{control, "--local-port=65536"}, "--local-port"},
		{"level", []string{control, "--log-level=loud"}, "log-level"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(tt.args, io.Discard)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRun runs a proxy without a control plane: it works, is not ready, and stops when told to.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	admin := filepath.Join(dir, "a.sock")
	ctx, cancel := context.WithCancel(t.Context())
	var logs bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, config{control: "unix://" + filepath.Join(dir, "none.sock"), node: "n", adminSocket: admin, metricsAddress: "127.0.0.1:0"}, &logs)
	}()
	client := adminClient(admin)
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(10 * time.Second); status(t, client, "/healthz") != http.StatusOK; {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("no answer within 10 s")
		}
	}
	if got := status(t, client, "/ready"); got != http.StatusServiceUnavailable {
		t.Errorf("ready without configuration: %d", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopping: %v\n%s", err, logs.String())
	}
}

// TestRunFails has an address in use.
func TestRunFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := t.TempDir()
	err = run(t.Context(), config{control: "unix://" + filepath.Join(dir, "none.sock"), node: "n", metricsAddress: l.Addr().String()}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}
