package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestHandshakeIsBounded has a client that connects and says nothing.
func TestHandshakeIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Options{Base: t.Context(), Log: slog.New(slog.DiscardHandler)})
		client, conn := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- s.ServeTLS(&singleListener{conn: conn}, &tls.Config{
				MinVersion:     tls.VersionTLS12,
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }, //nolint:nilnil // as crypto/tls documents
			})
		}()
		began := time.Now()
		if n, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) != headTimeout {
			t.Errorf("after %s: %d bytes, %v; want the end of the connection after %s", time.Since(began), n, err, headTimeout)
		}
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ServeTLS: %v", err)
		}
	})
}

// answering is a handler whose exchanges all get the same answer.
type answering struct {
	x      Exchange
	answer func(x *Exchange) error
}

func (h *answering) Engine() *Exchange { return &h.x }

func (h *answering) Handle() error { return h.answer(&h.x) }

func serverOf(t *testing.T, answer func(x *Exchange) error) *Server {
	t.Helper()
	return NewServer(Options{
		Base: t.Context(), Log: slog.New(slog.DiscardHandler), Handler: func() Handler { return &answering{answer: answer} },
	})
}

// TestSlowClients checks that who is silent for too long is cut off, and who is only slow is not.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sent string
		limit      time.Duration
	}{
		{"says nothing", "", idleTimeout},
		{"says half a request", "GET / HTTP/1.1\r\nHost:", headTimeout},
		{"says nothing after a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", idleTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := serverOf(t, func(x *Exchange) error { return x.Reply(http.StatusOK, "text/plain", "ok") })
				client, conn := net.Pipe()
				go s.ServeConn(conn)
				go func() { _, _ = io.WriteString(client, tt.sent) }()
				began := time.Now()
				_, err := io.ReadAll(client)
				if took := time.Since(began); err != nil || took < tt.limit || took > tt.limit+2*watchInterval {
					t.Errorf("after %s: %v; want the end of the connection after %s", took, err, tt.limit)
				}
				<-time.After(2 * watchInterval) // the watch ends when it finds no connection
			})
		})
	}
}

// TestPanicEndsOneConnection checks that a handler that panics takes nothing but its connection with it.
func TestPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	s := serverOf(t, func(x *Exchange) error {
		if x.Request.Target == "/panic" {
			panic("on purpose")
		}
		return x.Reply(http.StatusOK, "text/plain", "ok")
	})
	exchange := func(target string) string {
		client, conn := net.Pipe()
		go s.ServeConn(conn)
		go func() {
			_, _ = io.WriteString(client, "GET "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		}()
		all, _ := io.ReadAll(client)
		return string(all)
	}
	if got := exchange("/panic"); got != "" {
		t.Errorf("the client of the panic got %q", got)
	}
	if got := exchange("/"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
		t.Errorf("the next client got %q", got)
	}
}

// TestPipelining sends several requests at once and wants the responses in their order.
func TestPipelining(t *testing.T) {
	t.Parallel()
	s := serverOf(t, func(x *Exchange) error { return x.Reply(http.StatusOK, "text/plain", x.Request.Target) })
	client, conn := net.Pipe()
	go s.ServeConn(conn)
	go func() {
		_, _ = io.WriteString(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}()
	all, err := io.ReadAll(client)
	first, second := strings.Index(string(all), "/1"), strings.Index(string(all), "/2")
	if err != nil || first < 0 || second < first {
		t.Errorf("got %q, %v", all, err)
	}
}
