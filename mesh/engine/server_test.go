package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestHandshakeIsBounded has a client that connects and says nothing.
func TestHandshakeIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(context.Background(), http.NotFoundHandler(), slog.New(slog.DiscardHandler))
		client, conn := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- s.ServeTLS(&singleListener{conn: conn}, &tls.Config{
				MinVersion:     tls.VersionTLS12,
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }, //nolint:nilnil // as crypto/tls documents
			})
		}()
		began := time.Now()
		if n, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) != readHeaderTimeout {
			t.Errorf("after %s: %d bytes, %v; want the end of the connection after %s", time.Since(began), n, err, readHeaderTimeout)
		}
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ServeTLS: %v", err)
		}
	})
}
