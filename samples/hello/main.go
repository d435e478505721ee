// Command hello answers every request with a greeting. It is the smallest useful Knative service: it listens on $PORT, reads its
// configuration from the environment, and ends in order when it is told to.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// drain is how long requests in flight may take after SIGTERM.
const drain = 10 * time.Second

func main() {
	if err := run(); err != nil {
		slog.Error("serving", "err", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	greeting := "Hello " + getenv("TARGET", "World") + "!\n"
	srv := &http.Server{
		Addr:              ":" + getenv("PORT", "8080"),
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, greeting) // a client that went away needs no greeting
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// New connections are refused; the requests that are here are answered.
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("draining: %w", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// getenv returns an environment variable or what stands for it.
func getenv(key, fallback string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return fallback
}
