package proxy_test

import (
	"bytes"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
)

// origin answers every request with the same bytes and allocates nothing, so that allocations are the proxy's.
func origin(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 34\r\n\r\n0123456789012345678901234567890123")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 4096)
				for n := 0; ; {
					m, err := conn.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						if _, err := conn.Write(response); err != nil {
							return
						}
						n = 0
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// pinger sends one request at a time on one connection, without allocating.
type pinger struct {
	conn net.Conn
	buf  [4096]byte
}

var ping = []byte("GET / HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")

func newPinger(tb testing.TB, address string) *pinger {
	tb.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &pinger{conn: conn}
}

func (p *pinger) do() error {
	if _, err := p.conn.Write(ping); err != nil {
		return err
	}
	for n := 0; ; {
		m, err := p.conn.Read(p.buf[n:])
		if err != nil {
			return err
		}
		if n += m; bytes.HasSuffix(p.buf[:n], []byte("90123")) {
			return nil
		}
	}
}

func benchmark(b *testing.B, address string) {
	b.Helper()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		p := newPinger(b, address)
		for pb.Next() {
			if err := p.do(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkProxy(b *testing.B) {
	h := start(b)
	h.backend(revision("bench"), origin(b))
	h.route("bench.test", revision("bench").GetName())
	benchmark(b, h.public)
}

// BenchmarkReverseProxy is the standard library's, for comparison.
func BenchmarkReverseProxy(b *testing.B) {
	target := &url.URL{Scheme: "http", Host: origin(b)}
	s := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	b.Cleanup(s.Close)
	benchmark(b, s.Listener.Addr().String())
}

// TestAllocations keeps the path of a request free of allocations, all filters included.
func TestAllocations(t *testing.T) {
	h := start(t)
	h.backend(revision("bench"), origin(t))
	h.route("bench.test", revision("bench").GetName())
	p := newPinger(t, h.public)
	ceiling := 0.
	if raceEnabled {
		ceiling = 10 // the detector makes sync.Pool forget some of what it is given
	}
	if n := testing.AllocsPerRun(500, func() {
		if err := p.do(); err != nil {
			t.Fatal(err)
		}
	}); n > ceiling {
		t.Errorf("%v allocations per request, want at most %v", n, ceiling)
	}
}
