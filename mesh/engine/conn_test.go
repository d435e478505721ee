package engine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-dev/weft/mesh/http1"
	"github.com/weft-dev/weft/mesh/message"
)

// TestClientThatReadsNothing has a client that takes no byte of a response that the proxy has whole already.
func TestClientThatReadsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serverOf(t, func(x *Exchange) error { return x.Reply(http.StatusOK, "text/plain", "ok") })
		client, conn := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			s.ServeConn(conn)
		}()
		_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		select {
		case <-served:
		case <-time.After(writeStall + 3*watchInterval):
			t.Error("the connection of a client that reads nothing is kept")
			_ = client.Close()
			<-served
		}
		<-time.After(2 * watchInterval)
	})
}

// patient is a connection whose Close waits, as that of TLS does for a client that does not read.
type patient struct {
	net.Conn
	until chan struct{}
}

func (p patient) Close() error {
	<-p.until
	return p.Conn.Close()
}

// TestNobodyWaitsForAnothersClose checks that a connection that is slow to close does not hold up the server.
func TestNobodyWaitsForAnothersClose(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(s *Server, k *conn){
		"close":    func(s *Server, _ *conn) { _ = s.Close() },
		"stop":     func(s *Server, _ *conn) { s.closeIdle() },
		"idle":     func(_ *Server, k *conn) { k.inspect(time.Now().Add(2 * idleTimeout)) },
		"late":     func(s *Server, k *conn) { _ = s.Close(); s.admitConn(k) },
		"no head":  func(_ *Server, k *conn) { k.enter(phaseHead); k.inspect(time.Now().Add(2 * headTimeout)) },
		"no write": func(_ *Server, k *conn) { k.enter(phaseActive); k.writing.Store(1); k.inspect(time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serverOf(t, nil)
			client, socket := net.Pipe()
			defer func() { _ = client.Close() }()
			p := patient{socket, make(chan struct{})}
			k := newConn(s, p)
			k.socket = socket
			k.since.Store(1)
			s.mu.Lock()
			s.conns[k] = struct{}{}
			s.mu.Unlock()
			acted := make(chan struct{})
			go func() {
				defer close(acted)
				act(s, k)
			}()
			select {
			case <-acted:
			case <-time.After(2 * time.Second):
				t.Error("waits")
			}
			close(p.until)
			<-acted
			ended := make(chan error, 1)
			go func() {
				_, err := socket.Read(make([]byte, 1))
				ended <- err
			}()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the client has sent nothing")
				}
			case <-time.After(2 * time.Second):
				t.Error("the connection goes on")
			}
		})
	}
}

// TestPanicEndsSending checks that nothing uses the buffers of a connection after its handler has panicked.
func TestPanicEndsSending(t *testing.T) {
	t.Parallel()
	instance, far := net.Pipe()
	defer func() { _ = far.Close() }()
	h := &answering{}
	h.answer = func(x *Exchange) error {
		x.sendBody(&instanceConn{net: instance})
		panic("on purpose")
	}
	s := NewServer(Options{Base: t.Context(), Log: slog.New(slog.DiscardHandler), Handler: func() Handler { return h }})
	client, conn := net.Pipe()
	go func() { _, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345") }()
	s.ServeConn(conn)
	if h.x.sender.running || h.x.body.reading {
		t.Error("the body is still being sent")
	}
}

// TestRequestAfterTheEnd checks that a request that comes when all others have been given up is given up too.
func TestRequestAfterTheEnd(t *testing.T) {
	t.Parallel()
	base, end := context.WithCancelCause(t.Context())
	over := errors.New("over")
	causes := make(chan error, 1)
	s := NewServer(Options{Base: base, Log: slog.New(slog.DiscardHandler), Handler: func() Handler {
		return &answering{answer: func(x *Exchange) error {
			<-x.Context().Done()
			causes <- x.Cause()
			return ErrCut
		}}
	}})
	end(over)
	for !s.over.Load() {
		<-time.After(time.Millisecond)
	}
	client, conn := net.Pipe()
	go s.ServeConn(conn)
	_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case cause := <-causes:
		if !errors.Is(cause, over) {
			t.Errorf("cause %v", cause)
		}
	case <-time.After(2 * time.Second):
		t.Error("the request goes on")
		_ = client.Close()
	}
}

// TestStreamsAreChecked has requests of HTTP/2 that would be others in HTTP/1.
func TestStreamsAreChecked(t *testing.T) {
	t.Parallel()
	served := make(chan struct{}, 1)
	s := serverOf(t, func(x *Exchange) error {
		served <- struct{}{}
		return x.Reply(http.StatusOK, "text/plain", "ok")
	})
	for _, tt := range []struct {
		name, method, target, host string
		want                       int
	}{
		{"plain", "GET", "/a?b", "a:80", http.StatusOK},
		{"asterisk", "OPTIONS", "*", "a", http.StatusOK},
		{"method with a request in it", "GET /admin HTTP/1.1", "/", "a", http.StatusBadRequest},
		{"target with a version in it", "GET", "/ HTTP/1.0", "a", http.StatusBadRequest},
		{"other host in the target", "GET", "http://b c/", "a", http.StatusBadRequest},
		{"host with a space", "GET", "/", "a b", http.StatusBadRequest},
		{"no target", "GET", "", "a", http.StatusBadRequest},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Method, r.RequestURI, r.Host, r.ProtoMajor, r.ProtoMinor = tt.method, tt.target, tt.host, 2, 0
		w := httptest.NewRecorder()
		s.serveStream(w, r)
		if w.Code != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, w.Code, tt.want)
		}
		select {
		case <-served:
			if tt.want != http.StatusOK {
				t.Errorf("%s: was passed on", tt.name)
			}
		default:
		}
	}
}

// TestSwitchWithoutRequest has an instance of HTTP/2 that sends a 101, which only HTTP/1 knows.
func TestSwitchWithoutRequest(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	x := new(Exchange)
	x.Begin(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	early := informational{x: x}
	if err := early.forward(http.StatusSwitchingProtocols, textproto.MIMEHeader{}); err != nil || w.Code == http.StatusSwitchingProtocols {
		t.Errorf("got %d, %v", w.Code, err)
	}
	for _, status := range []int{-1, 0, 99, 101, 1000} {
		if err := sound(&http.Response{StatusCode: status}); !errors.Is(err, ErrNoResponse) {
			t.Errorf("a final response of status %d: %v", status, err)
		}
	}
}

// TestResponseHeads checks what the proxy says about a body where the instance said nothing.
func TestResponseHeads(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method      string
		status      int
		length      int64
		want, never string
	}{
		{http.MethodGet, http.StatusOK, -1, "Content-Length: 0\r\n", "Transfer-Encoding"},
		{http.MethodGet, http.StatusOK, 0, "Content-Length: 0\r\n", "Transfer-Encoding"},
		{http.MethodHead, http.StatusOK, -1, "Date: ", "Content-Length"},
		{http.MethodHead, http.StatusOK, 7, "Content-Length: 7\r\n", "Transfer-Encoding"},
		{http.MethodGet, http.StatusNotModified, -1, "Date: ", "Content-Length"},
		{http.MethodGet, http.StatusNoContent, -1, "Date: ", "Content-Length"},
	} {
		c := newConn(serverOf(t, nil), bare{})
		x := new(Exchange)
		x.Request.Method, x.Request.Major, x.Request.Minor = tt.method, 1, 1
		x.body.reset(x, nil, 0)
		c.x.Store(x)
		res := message.Response{Status: tt.status, Major: 2, Length: tt.length}
		if err := c.begin(&res, http1.None); err != nil {
			t.Fatal(err)
		}
		if got := string(c.out); !strings.Contains(got, tt.want) || strings.Contains(got, tt.never) || strings.Count(got, "Date: ") != 1 {
			t.Errorf("%s, %d: got %q, want %q", tt.method, tt.status, got, tt.want)
		}
	}
}

// bare is a connection that only has an address.
type bare struct{ net.Conn }

func (bare) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// TestNamesAreCopied checks that what net/http keeps does not lie in a buffer of ours.
func TestNamesAreCopied(t *testing.T) {
	t.Parallel()
	reader := http1.Reader{}
	reader.Reset(strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\nX-Name: value\r\n\r\n"))
	reader.Lend(make([]byte, 1024))
	var req message.Request
	head, err := http1.ReadRequest(&reader, make([]byte, 0, 1024), maxHead, &req)
	if err != nil {
		t.Fatal(err)
	}
	h := make(http.Header)
	setFields(h, &req.Header, "")
	clear(head[:cap(head)])
	for name, values := range h {
		if name != "X-Name" || values[0] != "value" {
			t.Errorf("got %q: %q", name, values)
		}
	}
}

// TestClosedUpstreamKeepsNothing has a request that ends after its instance has left.
func TestClosedUpstreamKeepsNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	u := NewUpstream(l.Addr().String())
	x := begin(t, http.MethodGet, "")
	c, err := u.get(x)
	if err != nil {
		t.Fatal(err)
	}
	far := <-accepted
	defer func() { _ = far.Close() }()
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	u.put(c)
	_ = far.SetReadDeadline(time.Now().Add(upstreamIdle / 2))
	if _, err := bufio.NewReader(far).ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the instance's connection: %v, want its end", err)
	}
}
