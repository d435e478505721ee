package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/weft-dev/weft/mesh/config"
)

// dial opens a raw connection to the public listener.
func (h *harness) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", h.public)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// readResponse reads one response from a raw connection; closes is whether it is the last one there.
func readResponse(t *testing.T, in *bufio.Reader) (status int, body string, closes bool) {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(all), res.Close
}

// rawServer accepts connections and gives each to handle, which gets a reader past the request's header.
func rawServer(t *testing.T, handle func(conn net.Conn, in *bufio.Reader, head string)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				in := bufio.NewReader(conn)
				var head strings.Builder
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
					if line == "\r\n" {
						break
					}
				}
				handle(conn, in, head.String())
			}()
		}
	}()
	return l.Addr().String()
}

// raw gives host a backend served by rawServer.
func (h *harness) raw(t *testing.T, host string, handle func(conn net.Conn, in *bufio.Reader, head string)) {
	t.Helper()
	h.backend(revision(host), rawServer(t, handle))
	h.route(host, revision(host).GetName())
}

// h2 is a client that speaks HTTP/2 with prior knowledge.
func (h *harness) h2(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	h := start(t)
	heads := make(chan string, 1)
	h.raw(t, "raw.test", func(conn net.Conn, _ *bufio.Reader, head string) {
		heads <- head
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	conn := h.dial(t)
	_, _ = io.WriteString(conn, "GET /a%2Fb/../c?x=1;y=%20|&z HTTP/1.1\r\nHost: raw.test:8080\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\n"+
		"Keep-Alive: timeout=5\r\nProxy-Authorization: Basic x\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"+
		"Knative-Serving-Revision: other\r\nKnative-Serving-Namespace: other\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n"+
		"X-Twice: one\r\nX-Twice: two\r\nCookie: a=b; c=d\r\n\r\n")
	got := <-heads
	got = regexp.MustCompile(`00-[0-9a-f]{32}-[0-9a-f]{16}-00`).ReplaceAllString(got, "TRACE")
	lines := strings.Split(strings.TrimSpace(got), "\r\n")
	if want := "GET /a%2Fb/../c?x=1;y=%20|&z HTTP/1.1"; lines[0] != want {
		t.Errorf("request line: got %q, want %q", lines[0], want)
	}
	have := make(map[string][]string)
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		have[name] = append(have[name], value)
	}
	want := map[string][]string{
		"Host":              {"raw.test:8080"},
		"TE":                {"trailers"},
		"HTTP2-Settings":    {"AAMAAABkAAQAAP__"},
		"X-Twice":           {"one", "two"},
		"Cookie":            {"a=b; c=d"},
		"X-Forwarded-For":   {"1.2.3.4, 127.0.0.1"},
		"X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host":  {"raw.test:8080"},
		"Forwarded":         {`for=1.2.3.4, for=127.0.0.1;host="raw.test:8080";proto=http`},
		"Traceparent":       {"TRACE"},
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("headers at the instance (-want +got):\n%s", diff)
	}
}

// TestClientCannotTakeAwayHowItCame names fields that the proxy adds as if they belonged to the client's connection.
func TestClientCannotTakeAwayHowItCame(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.serve("hop.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Proto")+" "+r.Header.Get("X-One"))
	}))
	r := h.request(http.MethodGet, "hop.test", "/", nil)
	r.Header["Connection"] = []string{"x-forwarded-for, X-FORWARDED-PROTO, x-one"}
	r.Header.Set("X-One", "1")
	if _, got := h.do(r); got != "127.0.0.1 http " {
		t.Errorf("the instance saw %q", got)
	}
}

func TestTraceparentIsKept(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.serve("trace.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Traceparent")) }))
	const want = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := h.request(http.MethodGet, "trace.test", "/", nil)
	r.Header.Set("Traceparent", want)
	if _, got := h.do(r); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.raw(t, "raw.test", func(conn net.Conn, _ *bufio.Reader, head string) {
		path := strings.Fields(head)[1]
		_, _ = io.WriteString(conn, map[string]string{
			"/cookies": "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
			"/length":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Hop: 1\r\nConnection: X-Hop\r\nKeep-Alive: timeout=1\r\n\r\nhello",
			"/chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-More: 43\r\n\r\n",
			"/close":   "HTTP/1.0 200 OK\r\n\r\nuntil the end",
			"/204":     "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
			"/304":     "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
			"/head":    "HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n",
			"/early":   "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"/odd":     "HTTP/1.1 299 Whatever\r\nContent-Length: 2\r\n\r\nok",
		}[path])
	})
	for _, tt := range []struct {
		name, method, path string
		status             int
		length             int64
		body               string
		header, trailer    http.Header
		early              string
	}{
		{name: "cookies stay apart", path: "/cookies", status: 200, header: http.Header{"Set-Cookie": {"a=1", "b=2"}}},
		{name: "length", path: "/length", status: 200, length: 5, body: "hello", header: http.Header{"X-Hop": nil, "Keep-Alive": nil, "Content-Type": nil}},
		{name: "trailers", path: "/chunked", status: 200, length: -1, body: "hello", trailer: http.Header{"X-Sum": {"42"}, "X-More": {"43"}}},
		{name: "body until close", path: "/close", status: 200, length: -1, body: "until the end"},
		{name: "no content", path: "/204", status: 204, header: http.Header{"X-A": {"b"}, "Content-Length": nil}},
		{name: "not modified", path: "/304", status: 304, header: http.Header{"Etag": {`"x"`}}},
		{name: "head", method: http.MethodHead, path: "/head", status: 200, length: 123, header: http.Header{"Content-Length": {"123"}}},
		{name: "early hints", path: "/early", status: 200, length: 2, body: "ok", early: "103 </a.css>"},
		{name: "unknown status", path: "/odd", status: 299, length: 2, body: "ok"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			early := ""
			r := h.request(method, "raw.test", tt.path, nil)
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
					early = strconv.Itoa(code) + " " + header.Get("Link")
					return nil
				},
			}))
			res, body := h.do(r)
			if res.StatusCode != tt.status || body != tt.body || res.ContentLength != tt.length || early != tt.early {
				t.Errorf("got %d, length %d, %q, early %q; want %d, %d, %q, %q",
					res.StatusCode, res.ContentLength, body, early, tt.status, tt.length, tt.body, tt.early)
			}
			for name, want := range tt.header {
				if diff := cmp.Diff(want, res.Header[name]); diff != "" {
					t.Errorf("header %s (-want +got):\n%s", name, diff)
				}
			}
			if len(tt.trailer) > 0 {
				if diff := cmp.Diff(tt.trailer, res.Trailer); diff != "" {
					t.Errorf("trailers (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestRequestTrailers(t *testing.T) {
	t.Parallel()
	h := start(t)
	address := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Sum")+" "+r.Trailer.Get("X-Unannounced"))
	}))
	for _, tt := range []struct {
		protocol config.Backend_Protocol
		want     string
	}{
		{config.Backend_HTTP1, "1 2"},
		{config.Backend_H2C, "1 "}, // over HTTP/2, net/http's server takes only what was announced
	} {
		host := strings.ToLower(tt.protocol.String()) + ".test"
		b := revision(host)
		b.Protocol = tt.protocol
		h.backend(b, address)
		h.route(host, b.GetName())
		conn := h.dial(t)
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: "+host+"\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"+
			"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Unannounced: 2\r\n\r\n")
		if _, body, _ := readResponse(t, bufio.NewReader(conn)); body != tt.want {
			t.Errorf("%s: got %q, want %q", tt.protocol, body, tt.want)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.serve("expect.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	t.Run("asked for", func(t *testing.T) {
		conn := h.dial(t)
		in := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: expect.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		line, err := in.ReadString('\n')
		if err != nil || !strings.Contains(line, "100 Continue") {
			t.Fatalf("got %q, %v", line, err)
		}
		_, _ = in.ReadString('\n')
		_, _ = io.WriteString(conn, "hello")
		if _, body, _ := readResponse(t, in); body != "hello" {
			t.Errorf("got %q", body)
		}
	})
	t.Run("refused", func(t *testing.T) {
		conn := h.dial(t)
		_, _ = io.WriteString(conn, "POST /refuse HTTP/1.1\r\nHost: expect.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if status, _, _ := readResponse(t, bufio.NewReader(conn)); status != http.StatusExpectationFailed {
			t.Errorf("got %d: the client was asked for a body that nobody wants", status)
		}
	})
}

// TestEarlyResponse sends the response while the client still sends the request: it must arrive, and what the client sends after it
// must not be taken for another request.
func TestEarlyResponse(t *testing.T) {
	t.Parallel()
	h := start(t)
	requests := make(chan string, 4)
	h.raw(t, "early.test", func(conn net.Conn, in *bufio.Reader, head string) {
		requests <- strings.SplitN(head, "\r\n", 2)[0]
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, in)
	})
	for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			conn := h.dial(t)
			in := bufio.NewReader(conn)
			_, _ = io.WriteString(conn, "POST /first HTTP/1.1\r\nHost: early.test\r\n"+framing+"\r\n\r\n")
			if status, body, closes := readResponse(t, in); status != http.StatusRequestEntityTooLarge || body != "big" || !closes {
				t.Errorf("got %d %q, close %v", status, body, closes)
			}
			_, _ = io.WriteString(conn, "GET /smuggled HTTP/1.1\r\nHost: early.test\r\n\r\n")
			if rest, _ := io.ReadAll(in); len(rest) > 0 {
				t.Errorf("answered once more: %q", rest)
			}
			if got := <-requests; !strings.HasPrefix(got, "POST /first") {
				t.Errorf("request %q", got)
			}
		})
	}
	select {
	case got := <-requests:
		t.Errorf("the instance got %q", got)
	default:
	}
}

// TestFullDuplex exchanges messages in both directions within one request.
func TestFullDuplex(t *testing.T) {
	t.Parallel()
	h := start(t)
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "echo "+line)
			_ = http.NewResponseController(w).Flush()
		}
	})
	address := server(t, echo)
	http1, h2c := revision("http1"), revision("h2c")
	h2c.Protocol = config.Backend_H2C
	h.backend(http1, address)
	h.backend(h2c, address)
	h.route("http1.test", http1.GetName())
	h.route("h2c.test", h2c.GetName())
	for _, tt := range []struct {
		name, host string
		client     *http.Client
	}{
		{"http1 to http1", "http1.test", h.client},
		{"http1 to h2c", "h2c.test", h.client},
		{"h2 to http1", "http1.test", h.h2(t)},
		{"h2 to h2c", "h2c.test", h.h2(t)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			body, out := io.Pipe()
			r := h.request(http.MethodPost, tt.host, "/", body).WithContext(ctx)
			res, err := tt.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			in := bufio.NewReader(res.Body)
			for i := range 5 {
				_, _ = fmt.Fprintf(out, "message %d\n", i)
				if got, err := in.ReadString('\n'); err != nil || got != fmt.Sprintf("echo message %d\n", i) {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			_ = out.Close()
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("at the end: %q, %v", rest, err)
			}
		})
	}
}

func TestGRPCShapes(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("grpc")
	b.Protocol = config.Backend_H2C
	h.backend(b, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path == "/only" {
			w.Header().Set("Grpc-Status", "5")
			w.Header()["Content-Length"] = nil
			return
		}
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})))
	h.route("grpc.test", b.GetName())
	empty := revision("empty")
	empty.Activation = nil
	h.backend(empty)
	h.route("empty.test", empty.GetName())
	h.client = h.h2(t)
	post := func(host, path string) (answer, string) {
		r := h.request(http.MethodPost, host, path, strings.NewReader("message"))
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
		return h.do(r)
	}
	res, body := post("grpc.test", "/")
	if body != "message" {
		t.Errorf("body %q", body)
	}
	if diff := cmp.Diff(http.Header{"Grpc-Status": {"0"}, "Grpc-Message": {"fine"}}, res.Trailer); diff != "" {
		t.Errorf("trailers (-want +got):\n%s", diff)
	}
	if res, body := post("grpc.test", "/only"); body != "" || res.Header.Get("Grpc-Status") != "5" || res.Header["Content-Length"] != nil {
		t.Errorf("trailers only: %q %v", body, res.Header)
	}
	if res, _ := post("empty.test", "/"); res.StatusCode != http.StatusOK || res.Header.Get("Grpc-Status") != "14" {
		t.Errorf("no instance: %d %v", res.StatusCode, res.Header)
	}
	if res, _ := post("unknown.test", "/"); res.StatusCode != http.StatusOK || res.Header.Get("Grpc-Status") != "12" {
		t.Errorf("no service: %d %v", res.StatusCode, res.Header)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := h.serve("ws.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		conn, err := upgrader.Upgrade(w, r, http.Header{"X-Extra": {"1"}})
		if err != nil {
			t.Errorf("upgrading: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if err := conn.WriteMessage(kind, append([]byte("echo "), message...)); err != nil {
				return
			}
		}
	}))
	conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+h.public+"/", http.Header{"Host": {"ws.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = res.Body.Close()
	if res.Header.Get("X-Extra") != "1" {
		t.Errorf("handshake header: %v", res.Header)
	}
	for _, message := range []string{"one", strings.Repeat("long", 50_000)} {
		if err := conn.WriteMessage(websocket.BinaryMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.ReadMessage(); err != nil || string(got) != "echo "+message {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	if got := h.InFlight(b.GetName()); got != 1 {
		t.Errorf("in flight during the connection: %d", got)
	}
	_ = conn.Close()
	eventually(t, "connection ended", func() bool { return h.InFlight(b.GetName()) == 0 })
}

// TestUpgradeHandshakeIsExact checks the spelling of the headers, that bytes sent with the handshake arrive, and half-close.
func TestUpgradeHandshakeIsExact(t *testing.T) {
	t.Parallel()
	h := start(t)
	heads := make(chan string, 1)
	h.raw(t, "up.test", func(conn net.Conn, in *bufio.Reader, head string) {
		heads <- head
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: Custom\r\nSec-WebSocket-Accept: x\r\n\r\nfirst ")
		all, _ := io.ReadAll(in)
		_, _ = io.WriteString(conn, "got "+string(all))
	})
	conn := h.dial(t)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: up.test\r\nConnection: Upgrade\r\nUpgrade: custom\r\nSec-WebSocket-Key: k\r\n\r\nsent early")
	in := bufio.NewReader(conn)
	var got strings.Builder
	for !strings.HasSuffix(got.String(), "\r\n\r\n") {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("got %q, %v", got.String(), err)
		}
		got.WriteString(line)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(in)
	if !strings.HasPrefix(got.String(), "HTTP/1.1 101 Switching Protocols\r\n") || !strings.Contains(got.String(), "Sec-WebSocket-Accept: x\r\n") ||
		string(rest) != "first got sent early" || err != nil {
		t.Errorf("client got %q, %q, %v", got.String(), rest, err)
	}
	if head := <-heads; !strings.Contains(head, "Sec-WebSocket-Key: k\r\n") || !strings.Contains(head, "Connection: Upgrade\r\n") || !strings.Contains(head, "Upgrade: custom\r\n") {
		t.Errorf("instance got %q", head)
	}
}

func TestUpgradeToAnotherProtocolIsRefused(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.raw(t, "up.test", func(conn net.Conn, _ *bufio.Reader, _ string) {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n")
	})
	r := h.request(http.MethodGet, "up.test", "/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	if res, _ := h.do(r); res.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d", res.StatusCode)
	}
}

// TestLargeBodies streams 100 MB each way at once within bounded memory.
func TestLargeBodies(t *testing.T) {
	h := start(t)
	h.serve("large.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	}))
	for _, tt := range []struct {
		name   string
		size   int64
		length int64
		client *http.Client
	}{{"length", 100 << 20, 100 << 20, h.client}, {"chunked", 20 << 20, -1, h.client}, {"h2", 20 << 20, -1, h.h2(t)}} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			sent := crc32.New(crc32.MakeTable(crc32.Castagnoli))
			r := h.request(http.MethodPost, "large.test", "/", io.TeeReader(io.LimitReader(newPattern(), tt.size), sent))
			r.ContentLength = tt.length
			res, err := tt.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			received := crc32.New(crc32.MakeTable(crc32.Castagnoli))
			if n, err := io.Copy(received, res.Body); n != tt.size || err != nil {
				t.Fatalf("received %d bytes, %v", n, err)
			}
			if sent.Sum32() != received.Sum32() {
				t.Error("the bytes differ")
			}
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 48<<20 {
				t.Errorf("heap grew by %d MB", grown>>20)
			}
		})
	}
}

// pattern is an endless stream of bytes whose period is in step with no buffer.
type pattern struct {
	block []byte
	at    int
}

func newPattern() *pattern {
	p := &pattern{block: make([]byte, 1_000_003)}
	for i := range p.block {
		p.block[i] = byte(rand.Uint32())
	}
	return p
}

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, p.block[p.at:])
	p.at = (p.at + n) % len(p.block)
	return n, nil
}

func TestStreamIsFlushed(t *testing.T) {
	t.Parallel()
	h := start(t)
	next := make(chan struct{})
	h.serve("sse.test", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for range next {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
		}
	}))
	res, err := h.client.Do(h.request(http.MethodGet, "sse.test", "/", nil))
	if err != nil {
		t.Fatal(err) // the header comes before the first event
	}
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewReader(res.Body)
	for range 3 {
		next <- struct{}{}
		if line, err := in.ReadString('\n'); line != "data: x\n" || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
		_, _ = in.ReadString('\n')
	}
	close(next)
}

// TestCutResponse checks that a response that breaks off does not look complete, and that nothing is added to it.
func TestCutResponse(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.raw(t, "cut.test", func(conn net.Conn, _ *bufio.Reader, head string) {
		if strings.Contains(head, "/chunked") {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		} else {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		}
	})
	for _, path := range []string{"/chunked", "/length"} {
		for name, client := range map[string]*http.Client{"http1": h.client, "h2": h.h2(t)} {
			t.Run(name+path, func(t *testing.T) {
				res, err := client.Do(h.request(http.MethodGet, "cut.test", path, nil))
				if err != nil {
					return // the header may be lost with the connection
				}
				defer func() { _ = res.Body.Close() }()
				body, err := io.ReadAll(res.Body)
				if err == nil || len(body) > len("hello") {
					t.Errorf("got %q, %v", body, err)
				}
			})
		}
	}
}

func TestInstanceErrors(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.raw(t, "garbage.test", func(conn net.Conn, _ *bufio.Reader, _ string) { _, _ = io.WriteString(conn, "garbage\r\n\r\n") })
	h.raw(t, "closes.test", func(net.Conn, *bufio.Reader, string) {})
	none := revision("none")
	none.Activation = nil
	h.backend(none)
	h.route("none.test", none.GetName())
	refusing := revision("refusing")
	refusing.Activation = nil
	h.backend(refusing, closedPort(t))
	h.route("refusing.test", refusing.GetName())
	for _, tt := range []struct {
		name, host, method string
		status             int
		want               string
	}{
		{"no HTTP", "garbage.test", http.MethodGet, 502, "the instance closed the connection without a valid response\n"},
		{"closed without response", "closes.test", http.MethodPost, 502, "the instance closed the connection without a valid response\n"},
		{"no endpoint", "none.test", http.MethodGet, 503, "no instance is ready\n"},
		{"refused", "refusing.test", http.MethodGet, 502, "no instance accepted the connection\n"},
		{"connect", "garbage.test", http.MethodConnect, 405, "CONNECT is not supported\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, body := h.do(h.request(tt.method, tt.host, "/", nil))
			if res.StatusCode != tt.status || body != tt.want {
				t.Errorf("got %d %q, want %d %q", res.StatusCode, body, tt.status, tt.want)
			}
		})
	}
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestLimits(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.serve("limits.test", text("ok"))
	r := h.request(http.MethodGet, "limits.test", "/", nil)
	r.Header.Set("X-Long", strings.Repeat("x", 80<<10))
	if res, _ := h.do(r); res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	h := start(t)
	broken := func() string { return rawServer(t, func(net.Conn, *bufio.Reader, string) {}) }
	good := func() string { return server(t, text("ok")) }
	// flaky closes every other connection without an answer.
	flaky := func() string {
		var n atomic.Int64
		return rawServer(t, func(conn net.Conn, _ *bufio.Reader, _ string) {
			if n.Add(1)%2 == 0 {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			}
		})
	}
	for _, tt := range []struct {
		name, method, body string
		addresses          []string
		status             int
	}{
		{"another instance after a refused connection", http.MethodPost, "body", []string{closedPort(t), closedPort(t), good()}, 200},
		{"once more after a reset", http.MethodGet, "", []string{flaky()}, 200},
		{"not twice", http.MethodGet, "", []string{broken(), broken(), broken()}, 502},
		{"not for what is not idempotent", http.MethodPost, "body", []string{broken()}, 502},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := strings.ReplaceAll(tt.name, " ", "-")
			h.backend(revision(host), tt.addresses...)
			h.route(host, revision(host).GetName())
			for range 10 {
				res, _ := h.do(h.request(tt.method, host, "/", strings.NewReader(tt.body)))
				if res.StatusCode != tt.status {
					t.Errorf("got %d, want %d", res.StatusCode, tt.status)
				}
			}
		})
	}
}

func TestNetworkProbes(t *testing.T) {
	t.Parallel()
	h := start(t)
	awake := h.serve("awake.test", text("never"))
	asleep := revision("asleep.test")
	h.backend(asleep)
	h.route("asleep.test", asleep.GetName())
	for _, tt := range []struct {
		name, host, kind string
		status           int
		want             string
	}{
		{"ingress", "awake.test", "probe", 200, ""},
		{"ingress asleep", "asleep.test", "probe", 200, ""},
		{"activator", "asleep.test", "activator", 200, "activator"},
		{"queue", "awake.test", "queue", 200, "queue"},
		{"queue asleep", "asleep.test", "queue", 503, "no instance is ready"},
		{"wrong", "awake.test", "other", 400, "unexpected probe header value: other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := h.request(http.MethodGet, tt.host, "/", nil)
			r.Header.Set("K-Network-Probe", tt.kind)
			r.Header.Set("K-Network-Hash", "abc")
			res, body := h.do(r)
			if res.StatusCode != tt.status || body != tt.want || res.Header.Get("K-Network-Hash") != "abc" {
				t.Errorf("got %d %q %v", res.StatusCode, body, res.Header)
			}
		})
	}
	if h.gauge("weft_requests_total") != 0 || h.Waiting(asleep.GetName()) != 0 || h.InFlight(awake.GetName()) != 0 {
		t.Error("a probe counted as load")
	}
}

// TestRetryWithABodyToCome has an instance that closes the connection before the client has begun to send the body.
func TestRetryWithABodyToCome(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]string{"length": "Content-Length: 5\r\n", "chunked": "Transfer-Encoding: chunked\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			var heads atomic.Int32
			second := make(chan struct{})
			h.raw(t, "late.test", func(conn net.Conn, in *bufio.Reader, head string) {
				if heads.Add(1) == 1 {
					return
				}
				close(second)
				r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), in)))
				if err != nil {
					return
				}
				body, _ := io.ReadAll(r.Body)
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			})
			conn := h.dial(t)
			_, _ = io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: late.test\r\n"+length+"\r\n")
			go func() {
				select {
				case <-second:
				case <-t.Context().Done():
				}
				if name == "chunked" {
					_, _ = io.WriteString(conn, "5\r\nhello\r\n0\r\n\r\n")
				} else {
					_, _ = io.WriteString(conn, "hello")
				}
			}()
			if status, body, _ := readResponse(t, bufio.NewReader(conn)); status != http.StatusOK || body != "hello" {
				t.Errorf("got %d, %q", status, body)
			}
		})
	}
}

// TestRetryWithASmallBody has an instance that closes the connection when it has the whole request.
func TestRetryWithASmallBody(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{http.MethodPut: http.StatusOK, http.MethodPost: http.StatusBadGateway} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			var heads atomic.Int32
			h.raw(t, "small.test", func(conn net.Conn, in *bufio.Reader, _ string) {
				body := make([]byte, 5)
				if _, err := io.ReadFull(in, body); err == nil && heads.Add(1) > 1 {
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+string(body))
				}
			})
			conn := h.dial(t)
			_, _ = io.WriteString(conn, method+" / HTTP/1.1\r\nHost: small.test\r\nContent-Length: 5\r\n\r\nhello")
			if status, body, _ := readResponse(t, bufio.NewReader(conn)); status != want || want == http.StatusOK && body != "hello" {
				t.Errorf("got %d, %q, want %d", status, body, want)
			}
		})
	}
}

// TestInformationalResponsesAreBounded has an instance that never comes to its response.
func TestInformationalResponsesAreBounded(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.raw(t, "hints.test", func(conn net.Conn, _ *bufio.Reader, _ string) {
		for {
			if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
		}
	})
	if got, _ := h.get("hints.test", "/"); got.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d", got.StatusCode)
	}
}

// TestDate checks that each response says when it was made, in the instance's words if it did.
func TestDate(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.raw(t, "date.test", func(conn net.Conn, _ *bufio.Reader, head string) {
		date := ""
		if strings.HasPrefix(head, "GET /own") {
			date = "Date: yesterday\r\n"
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+date+"Content-Length: 0\r\n\r\n")
	})
	if got, _ := h.get("date.test", "/own"); !slices.Equal(got.Header["Date"], []string{"yesterday"}) {
		t.Errorf("got %q", got.Header["Date"])
	}
	for _, host := range []string{"date.test", "unknown.test"} {
		got, _ := h.get(host, "/")
		if at, err := http.ParseTime(got.Header.Get("Date")); err != nil || time.Since(at) > time.Minute {
			t.Errorf("%s: got %q, %v", host, got.Header["Date"], err)
		}
	}
}
