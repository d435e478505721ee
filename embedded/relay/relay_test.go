package relay_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/weft-dev/weft/embedded/relay"
)

// echo answers on loopback with what it has read, once its client has stopped sending.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				data, err := io.ReadAll(conn)
				if err == nil {
					_, _ = conn.Write(data)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// start runs a relay on a free port and returns its address, and a function that stops it.
func start(t *testing.T, target string) (address string, stop func()) {
	t.Helper()
	r, err := relay.Listen(t.Context(), "127.0.0.1:0", target, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp4", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

func TestRelayPassesBothDirectionsAndHalfClose(t *testing.T) {
	t.Parallel()
	address, stop := start(t, echo(t))
	defer stop()
	conn := dial(t, address)
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	// The other side answers only when it has seen the end of this direction.
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v, want what was sent", got, err)
	}
}

func TestRelayClosesConnectionsWhenItStops(t *testing.T) {
	t.Parallel()
	address, stop := start(t, echo(t))
	conn := dial(t, address)
	if _, err := io.WriteString(conn, "waiting"); err != nil {
		t.Fatal(err)
	}
	stop()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a relay that has stopped", n)
	}
	if conn, err := net.Dial("tcp4", address); err == nil {
		_ = conn.Close()
		t.Error("the relay still accepts")
	}
}

func TestRelayWithoutTarget(t *testing.T) {
	t.Parallel()
	address, stop := start(t, "127.0.0.1:1")
	defer stop()
	conn := dial(t, address)
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("reading gave %v, want the end of the connection", err)
	}
}

// TestListenBeforeTheAddressExists is the case of a first start, when the bridge is yet to be made.
func TestListenBeforeTheAddressExists(t *testing.T) {
	t.Parallel()
	r, err := relay.Listen(t.Context(), "192.0.2.77:16443", "127.0.0.1:1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
