package http1

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/mesh/message"
)

const testLimit = 4096

func newReader(src io.Reader) *Reader {
	r := new(Reader)
	r.Reset(src)
	r.Lend(make([]byte, 512))
	return r
}

func readRequest(src io.Reader) (*message.Request, *Reader, error) {
	r := newReader(src)
	req := new(message.Request)
	_, err := ReadRequest(r, nil, testLimit, req)
	return req, r, err
}

// TestRefusedRequests goes through what two readers could understand differently, and what hostile clients try.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	line := "GET / HTTP/1.1\r\n"
	host := line + "Host: a\r\n"
	for _, tt := range []struct {
		name, raw string
		status    int
	}{
		{"no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"method that is no token", "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"no version", "GET /\r\nHost: a\r\n\r\n", 400},
		{"version of another protocol", "GET / ICY/1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP/2 in text", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"control byte in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"target without slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"asterisk beside OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"bad escape in the path", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"cut escape in the path", "GET /%a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"user in the authority", "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"another scheme", "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"no host", line + "\r\n", 400},
		{"two hosts", host + "Host: a\r\n\r\n", 400},
		{"host with a path", line + "Host: a/b\r\n\r\n", 400},
		{"host with a user", line + "Host: u@a\r\n\r\n", 400},
		{"port that is no number", line + "Host: a:b\r\n\r\n", 400},
		{"open bracket", line + "Host: [::1\r\n\r\n", 400},
		{"bare LF after the first line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
		{"bare LF in the header", host + "X: y\nZ: 1\r\n\r\n", 400},
		{"bare CR in a value", host + "X: a\rb\r\n\r\n", 400},
		{"NUL in a value", host + "X: a\x00b\r\n\r\n", 400},
		{"folded field", host + "X: a\r\n b\r\n\r\n", 400},
		{"folded first field", line + " Host: a\r\n\r\n", 400},
		{"space before the colon", host + "X : a\r\n\r\n", 400},
		{"no colon", host + "X\r\n\r\n", 400},
		{"no name", host + ": a\r\n\r\n", 400},
		{"name that is no token", host + "X(: a\r\n\r\n", 400},
		{"two lengths", host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		{"the same length twice", host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
		{"list of lengths", host + "Content-Length: 1, 1\r\n\r\n", 400},
		{"negative length", host + "Content-Length: -1\r\n\r\n", 400},
		{"length with a sign", host + "Content-Length: +1\r\n\r\n", 400},
		{"empty length", host + "Content-Length:\r\n\r\n", 400},
		{"length out of range", host + "Content-Length: 9999999999999999999\r\n\r\n", 400},
		{"length beside chunked", host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"encoding that we do not know", host + "Transfer-Encoding: gzip\r\n\r\n", 501},
		{"encoding before chunked", host + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		{"chunked twice", host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
		{"encoding with a tab for a space", host + "Transfer-Encoding: \tchunked;\r\n\r\n", 501},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"long header", host + "X: " + strings.Repeat("x", testLimit) + "\r\n\r\n", 431},
		{"endless header", host + strings.Repeat("x", 2*testLimit), 431},
		{"many fields", host + strings.Repeat("X: y\r\n", MaxFields) + "\r\n", 431},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, src := range map[string]io.Reader{"at once": strings.NewReader(tt.raw), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.raw))} {
				_, _, err := readRequest(src)
				var refused *Error
				if !errors.As(err, &refused) || refused.Status != tt.status {
					t.Errorf("%s: %v, want status %d", name, err, tt.status)
				}
			}
		})
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, raw string
		want      message.Request
		fields    []string
	}{
		{
			name: "plain", raw: "GET /a?b HTTP/1.1\r\nHost: a.test:80\r\naccept:  x \t\r\nX-B:\r\n\r\n",
			want: message.Request{Method: "GET", Target: "/a?b", Host: "a.test:80", Major: 1, Minor: 1}, fields: []string{"accept: x", "X-B: "},
		},
		{
			name: "empty lines before it", raw: "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
			want: message.Request{Method: "GET", Target: "/", Host: "a", Major: 1, Minor: 1},
		},
		{
			name: "HTTP/1.0", raw: "HEAD / HTTP/1.0\r\n\r\n",
			want: message.Request{Method: "HEAD", Target: "/", Major: 1, Close: true},
		},
		{
			name: "HTTP/1.0 that stays", raw: "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
			want: message.Request{Method: "GET", Target: "/", Major: 1},
		},
		{
			name: "length", raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
			want: message.Request{Method: "POST", Target: "/", Host: "a", Major: 1, Minor: 1, Length: 12, Close: true},
		},
		{
			name: "chunked", raw: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTE: Trailers\r\n\r\n",
			want: message.Request{Method: "POST", Target: "/", Host: "a", Major: 1, Minor: 1, Length: -1, TrailersWanted: true},
		},
		{
			name: "absolute form", raw: "GET HTTP://b.test?c HTTP/1.1\r\nHost: a\r\n\r\n",
			want: message.Request{Method: "GET", Target: "/?c", Host: "b.test", Major: 1, Minor: 1},
		},
		{
			name: "asterisk", raw: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
			want: message.Request{Method: "OPTIONS", Target: "*", Host: "a", Major: 1, Minor: 1},
		},
		{
			name: "IPv6", raw: "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
			want: message.Request{Method: "GET", Target: "/", Host: "[::1]:80", Major: 1, Minor: 1},
		},
		{
			name: "upgrade", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X\r\nX: 1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
			want: message.Request{Method: "GET", Target: "/", Host: "a", Major: 1, Minor: 1, Upgrade: "websocket"}, fields: []string{"Sec-WebSocket-Key: k"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, src := range map[string]io.Reader{"at once": strings.NewReader(tt.raw + "rest"), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.raw + "rest"))} {
				got, r, err := readRequest(src)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(tt.fields, fieldLines(&got.Header)); diff != "" {
					t.Errorf("%s: fields (-want +got):\n%s", name, diff)
				}
				got.Header = message.Header{}
				if diff := cmp.Diff(tt.want, *got, cmp.AllowUnexported(message.Header{})); diff != "" {
					t.Errorf("%s: (-want +got):\n%s", name, diff)
				}
				if left := string(r.Buffered()); left != "rest"[:min(len(left), 4)] {
					t.Errorf("%s: left in the buffer: %q", name, left)
				}
			}
		})
	}
}

func fieldLines(h *message.Header) []string {
	var out []string
	for _, f := range h.Fields() {
		out = append(out, f.Name+": "+f.Value)
	}
	return out
}

func TestEndOfConnection(t *testing.T) {
	t.Parallel()
	if _, _, err := readRequest(strings.NewReader("")); !errors.Is(err, io.EOF) {
		t.Errorf("before a request: %v, want io.EOF", err)
	}
	if _, _, err := readRequest(strings.NewReader("GET / HT")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("within a request: %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, raw string
		status            int
		length            int64
		framing           Framing
		closes, refused   bool
	}{
		{name: "length", raw: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", status: 200, length: 3, framing: Length},
		{name: "nothing", raw: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200},
		{name: "chunked", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200, length: -1, framing: Chunked},
		{name: "until close", raw: "HTTP/1.1 200\r\n\r\n", status: 200, length: -1, framing: UntilClose, closes: true},
		{name: "HTTP/1.0", raw: "HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\n", status: 404, length: 1, framing: Length, closes: true},
		{name: "no content with a length", raw: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204},
		{name: "not modified with a length", raw: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, length: 5},
		{name: "head", method: "HEAD", raw: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, length: 5},
		{name: "continue", raw: "HTTP/1.1 100 Continue\r\n\r\n", status: 100},
		{name: "no version", raw: "200 OK\r\n\r\n", refused: true},
		{name: "another version", raw: "HTTP/2.0 200 OK\r\n\r\n", refused: true},
		{name: "status of two digits", raw: "HTTP/1.1 20 OK\r\n\r\n", refused: true},
		{name: "status of four digits", raw: "HTTP/1.1 2000 OK\r\n\r\n", refused: true},
		{name: "status below 100", raw: "HTTP/1.1 099 OK\r\n\r\n", refused: true},
		{name: "both framings", raw: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", refused: true},
		{name: "two lengths", raw: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", refused: true},
		{name: "unknown encoding", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", refused: true},
		{name: "control byte in the reason", raw: "HTTP/1.1 200 O\x01K\r\n\r\n", refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var res message.Response
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			_, framing, err := ReadResponse(newReader(strings.NewReader(tt.raw)), nil, testLimit, method, &res)
			if tt.refused {
				if err == nil {
					t.Fatalf("accepted: %+v", res)
				}
				return
			}
			if err != nil || res.Status != tt.status || res.Length != tt.length || framing != tt.framing || res.Close != tt.closes {
				t.Errorf("got %d, length %d, framing %d, close %v, %v", res.Status, res.Length, framing, res.Close, err)
			}
		})
	}
}

// FuzzReadRequest compares with net/http: what this reader accepts, net/http accepts, with the same meaning. The opposite does not hold.
func FuzzReadRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a%2Fb?c=d HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 3\r\nX: y\r\nX: z\r\n\r\nabc",
		"PUT http://b/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::1]:1\r\nConnection: close, x\r\nX: 1\r\n\r\n",
		"BREW / HTTP/1.1\r\nHost:\r\nX:\t\x80\r\n\r\n",
		"GET http://b%./c HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://b#/c HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, r, err := readRequest(strings.NewReader(string(raw)))
		if err != nil || got.Method == http.MethodConnect {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.TrimLeft(string(raw), "\r\n"))))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", raw, err)
		}
		if got.Method != want.Method || got.Host != want.Host || got.Length != want.ContentLength || got.Minor != want.ProtoMinor {
			t.Fatalf("%q\ngot  %s %q %d HTTP/1.%d\nwant %s %q %d HTTP/1.%d", raw, got.Method, got.Host, got.Length, got.Minor, want.Method, want.Host, want.ContentLength, want.ProtoMinor)
		}
		for _, field := range got.Header.Fields() {
			if !slices.Contains(want.Header.Values(field.Name), field.Value) {
				t.Errorf("%q: %s: %q is not in %q", raw, field.Name, field.Value, want.Header.Values(field.Name))
			}
		}
		body, err := readBody(r, got)
		wantBody, wantErr := io.ReadAll(want.Body)
		if err == nil && (wantErr != nil || string(body) != string(wantBody)) {
			t.Errorf("%q: body %q, want %q, %v", raw, body, wantBody, wantErr)
		}
	})
}

func readBody(r *Reader, req *message.Request) ([]byte, error) {
	framing := None
	switch {
	case req.Length > 0:
		framing = Length
	case req.Length < 0:
		framing = Chunked
	}
	return drain(r, framing, req.Length)
}

func drain(r *Reader, framing Framing, length int64) ([]byte, error) {
	var body Body
	body.Reset(r, framing, length)
	var all []byte
	for {
		data, err := body.Next(100)
		all = append(all, data...)
		if errors.Is(err, io.EOF) && body.Done() {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 100)
	for _, tt := range []struct {
		name, raw string
		framing   Framing
		length    int64
		want      string
		rest      string
		broken    bool
	}{
		{name: "none", raw: "next", want: "", rest: "next"},
		{name: "length", raw: "abcnext", framing: Length, length: 3, want: "abc", rest: "next"},
		{name: "long", raw: long + "next", framing: Length, length: 1600, want: long, rest: "next"},
		{name: "cut", raw: "ab", framing: Length, length: 3, want: "ab", broken: true},
		{name: "until close", raw: long, framing: UntilClose, want: long},
		{name: "chunked", raw: "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nnext", framing: Chunked, want: "abcde", rest: "next"},
		{name: "chunk over several reads", raw: "640\r\n" + long + "\r\n0\r\n\r\n", framing: Chunked, want: long},
		{name: "extension", raw: "3;a=b\r\nabc\r\n0;c\r\n\r\n", framing: Chunked, want: "abc"},
		{name: "upper case", raw: "A\r\n0123456789\r\n000\r\n\r\n", framing: Chunked, want: "0123456789"},
		{name: "cut chunk", raw: "3\r\nab", framing: Chunked, want: "ab", broken: true},
		{name: "no last chunk", raw: "3\r\nabc\r\n", framing: Chunked, want: "abc", broken: true},
		{name: "no size", raw: "\r\n", framing: Chunked, broken: true},
		{name: "size that is none", raw: "x\r\n", framing: Chunked, broken: true},
		{name: "negative size", raw: "-1\r\n", framing: Chunked, broken: true},
		{name: "size with 0x", raw: "0x1\r\na\r\n", framing: Chunked, broken: true},
		{name: "size out of range", raw: "fffffffffffffffff\r\n", framing: Chunked, broken: true},
		{name: "space before the extension", raw: "3 ;a\r\nabc\r\n0\r\n\r\n", framing: Chunked, broken: true},
		{name: "space after the size", raw: "3 \r\nabc\r\n0\r\n\r\n", framing: Chunked, broken: true},
		{name: "bare LF after the size", raw: "3\nabc\r\n0\r\n\r\n", framing: Chunked, broken: true},
		{name: "bare LF in the extension", raw: "3;a\nb\r\nabc\r\n0\r\n\r\n", framing: Chunked, broken: true},
		{name: "bare LF after the data", raw: "3\r\nabc\n0\r\n\r\n", framing: Chunked, want: "abc", broken: true},
		{name: "data longer than its size", raw: "3\r\nabcd\r\n0\r\n\r\n", framing: Chunked, want: "abc", broken: true},
		{name: "long extension", raw: "3;" + long + "\r\nabc\r\n0\r\n\r\n", framing: Chunked, broken: true},
		{name: "bad trailer", raw: "0\r\nX : y\r\n\r\n", framing: Chunked, broken: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, src := range map[string]io.Reader{"at once": strings.NewReader(tt.raw), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.raw))} {
				r := newReader(src)
				got, err := drain(r, tt.framing, tt.length)
				if string(got) != tt.want || (err != nil) != tt.broken {
					t.Errorf("%s: got %d bytes %q, %v", name, len(got), got, err)
				}
				if rest := string(r.Buffered()); !tt.broken && !strings.HasPrefix(tt.rest, rest) {
					t.Errorf("%s: left %q, want %q", name, rest, tt.rest)
				}
			}
		})
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	var body Body
	body.Reset(newReader(strings.NewReader("0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\nx-B: c\r\nConnection: x-b2\r\n\r\n")), Chunked, -1)
	if _, err := body.Next(1); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Grpc-Status: 0", "x-B: c"}, fieldLines(&body.Trailers)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	var h message.Header
	h.Append("x-A", "1")
	req := message.Request{Method: "PUT", Target: "/a", Host: "b", Header: h, Length: 3, TrailersWanted: true, Upgrade: "ws"}
	want := "PUT /a HTTP/1.1\r\nHost: b\r\nx-A: 1\r\nTE: trailers\r\nConnection: Upgrade\r\nUpgrade: ws\r\nContent-Length: 3\r\n\r\n"
	if got := string(AppendRequest(nil, &req, Length)); got != want {
		t.Errorf("request %q, want %q", got, want)
	}
	res := message.Response{Status: 404, Header: h, Trailers: "T"}
	want = "HTTP/1.1 404 Not Found\r\nx-A: 1\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	if got := string(AppendResponse(nil, &res, Chunked, Close)); got != want {
		t.Errorf("response %q, want %q", got, want)
	}
	res = message.Response{Status: 101, Reason: "Over", Upgrade: "ws"}
	want = "HTTP/1.1 101 Over\r\nConnection: Upgrade\r\nUpgrade: ws\r\n\r\n"
	if got := string(AppendResponse(nil, &res, None, KeepAlive)); got != want {
		t.Errorf("switch %q, want %q", got, want)
	}
	if got := string(AppendChunk(nil, 255)) + ChunkEnd + string(AppendLastChunk(nil, &h)); got != "ff\r\n\r\n0\r\nx-A: 1\r\n\r\n" {
		t.Errorf("chunks %q", got)
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	raw := "GET /a?b HTTP/1.1\r\nHost: a.test:80\r\nUser-Agent: x\r\nAccept: */*\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
	src := strings.NewReader(raw)
	r := newReader(src)
	var req message.Request
	var buf []byte
	if n := testing.AllocsPerRun(100, func() {
		src.Reset(raw)
		r.Reset(src)
		var err error
		if buf, err = ReadRequest(r, buf, testLimit, &req); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}
