package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of a client connection.
const (
	maxHeaderBytes    = 64 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// maxStreams bounds the requests of one HTTP/2 connection; clients queue or open another.
	maxStreams = 250
	// writeStall ends an HTTP/2 connection on which the client takes no byte although there are some to send.
	writeStall = time.Minute
)

// Server accepts connections and hands requests to a handler.
type Server struct {
	http *http.Server
}

// NewServer returns a server. Base is the context from which those of all requests descend: its end cancels them.
func NewServer(base context.Context, handler http.Handler, log *slog.Logger) *Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &Server{http: &http.Server{
		Handler:                      handler,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  withConn,
		ReadHeaderTimeout:            readHeaderTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		Protocols:                    protocols,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: writeStall},
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Serve accepts connections until Shutdown or Close, and then returns nil.
func (s *Server) Serve(l net.Listener) error { return ended(s.http.Serve(l)) }

// ServeTLS is Serve for connections that begin with a TLS handshake, which has readHeaderTimeout to complete. HTTP/2 and HTTP/1.1 are
// negotiated by ALPN. The keys of session tickets are made, and replaced every day, by crypto/tls.
func (s *Server) ServeTLS(l net.Listener, cfg *tls.Config) error {
	s.http.TLSConfig = cfg
	return ended(s.http.ServeTLS(l, "", ""))
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, tells clients to go elsewhere and waits for the requests in flight, upgraded connections apart.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close ends all connections.
func (s *Server) Close() error { return s.http.Close() }
