package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc"
)

// serveControl serves what the proxy asks the control plane for, on a unix socket that only this user may open.
func serveControl(ctx context.Context, path string, register func(*grpc.Server)) error {
	// A socket of an earlier run that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing old control socket: %w", err)
	}
	listener, err := listenPrivate(ctx, path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	register(server)
	// Streams live as long as their proxies, so a graceful stop would never end.
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(listener); err != nil {
		return fmt.Errorf("serving the proxy on %q: %w", path, err)
	}
	return nil
}

func listenPrivate(ctx context.Context, path string) (net.Listener, error) {
	// The directory is closed to others; the mode is for those who open it up.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on socket %q: %w", path, err)
	}
	if err := os.Chmod(path, syscall.S_IRUSR|syscall.S_IWUSR); err != nil {
		return nil, errors.Join(fmt.Errorf("closing socket %q to others: %w", path, err), listener.Close())
	}
	return listener, nil
}
