package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// ServeTLS is Serve for connections that begin with a TLS handshake, which has headTimeout to complete. HTTP/2 and HTTP/1.1 are
// negotiated by ALPN. The keys of session tickets are made, and replaced every day, by crypto/tls.
func (s *Server) ServeTLS(l net.Listener, cfg *tls.Config) error {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2", "http/1.1"}
	return s.accept(l, func(c net.Conn) { s.serveTLS(c, cfg) })
}

func (s *Server) serveTLS(c net.Conn, cfg *tls.Config) {
	done := make(chan struct{})
	socket := &handedConn{Conn: c, first: c, closed: sync.OnceFunc(func() { close(done) })}
	t := tls.Server(socket, cfg)
	ctx, cancel := context.WithTimeout(s.opts.Base, headTimeout)
	err := t.HandshakeContext(ctx)
	cancel()
	if err != nil {
		s.opts.Log.Debug("TLS handshake", "remote", c.RemoteAddr(), "error", err)
		tellPlainHTTP(err)
		_ = t.Close()
		return
	}
	if t.ConnectionState().NegotiatedProtocol == "h2" {
		_ = s.h2.Serve(&singleListener{conn: t})
		<-done
		return
	}
	k := newConn(s, t)
	k.secure, k.socket = true, c
	k.raw = rawConn(c)
	if s.admitConn(k) != nil {
		k.serve()
	}
}

// tellPlainHTTP answers a client that has sent plain HTTP, whose first bytes are no TLS record.
func tellPlainHTTP(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil || record.RecordHeader[0] < 'A' || record.RecordHeader[0] > 'Z' {
		return
	}
	_, _ = io.WriteString(record.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+
		"This port speaks HTTPS.\n")
}
