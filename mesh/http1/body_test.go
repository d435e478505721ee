package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/weft-dev/weft/mesh/message"
)

// hesitant returns a deadline's error once after each byte.
type hesitant struct {
	rest   string
	failed bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.failed = !h.failed; h.failed {
		return 0, os.ErrDeadlineExceeded
	}
	if h.rest == "" {
		return 0, io.EOF
	}
	p[0], h.rest = h.rest[0], h.rest[1:]
	return 1, nil
}

// TestInterruptedBody reads bodies although the reads are interrupted everywhere.
func TestInterruptedBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sent, want, trailer string
		framing                   Framing
		length                    int64
	}{
		{name: "chunked", sent: "3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n", want: "abcde", framing: Chunked},
		{name: "empty", sent: "0\r\n\r\n", framing: Chunked},
		{name: "trailers", sent: "1\r\na\r\n0\r\nX-A: b\r\n\r\n", want: "a", trailer: "b", framing: Chunked},
		{name: "length", sent: "abc", want: "abc", framing: Length, length: 3},
		{name: "until close", sent: "abc", want: "abc", framing: UntilClose},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src := &hesitant{rest: tt.sent}
			r := newReader(src)
			var b Body
			b.Reset(r, tt.framing, tt.length)
			var got bytes.Buffer
			for {
				data, err := b.Next(100)
				got.Write(data)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					continue
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != tt.want || src.rest != "" || len(r.Buffered()) != 0 {
				t.Errorf("got %q, %q left", &got, src.rest)
			}
			if trailer, _ := b.Trailers.Only(message.MatchName("X-A")); trailer != tt.trailer {
				t.Errorf("trailer %q", trailer)
			}
		})
	}
}

// TestNamesInConnection bounds the work that one field can cause.
func TestNamesInConnection(t *testing.T) {
	t.Parallel()
	for names, want := range map[int]error{maxNamed: nil, maxNamed + 1: errConnection} {
		list := strings.TrimSuffix(strings.Repeat("a,", names), ",")
		_, _, err := readRequest(strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\nConnection: " + list + "\r\n\r\n"))
		if !errors.Is(err, want) {
			t.Errorf("%d names: %v, want %v", names, err, want)
		}
	}
}

// FuzzChunked compares with net/http: a chunked body that this reader accepts is the same there, and ends at the same byte. However
// it comes in, it is read the same.
func FuzzChunked(f *testing.F) {
	for _, seed := range []string{
		"3\r\nabc\r\n0\r\n\r\nGET", "0\r\nX-A: b\r\n\r\n", "a;b=\"c\"\r\n0123456789\r\n00\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n",
		"FFFFFFFFFFFFFFFF\r\n", "1\r\nab\r\n0\r\n\r\n", "0\r\n\r\n\r\n", "0\r\nA: b\r\n c: d\r\n\r\n", "-1\r\n", "0x1\r\na\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newReader(bytes.NewReader(raw))
		got, err := drain(r, Chunked, 0)
		slow, slowErr := drain(newReader(iotest.OneByteReader(bytes.NewReader(raw))), Chunked, 0)
		if (err == nil) != (slowErr == nil) || err == nil && !bytes.Equal(got, slow) {
			t.Fatalf("%q: at once %q, %v; byte by byte %q, %v", raw, got, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		in := bufio.NewReader(io.MultiReader(strings.NewReader(head), bytes.NewReader(raw)))
		want, err := http.ReadRequest(in)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(want.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%q: got %q, want %q, %v", raw, got, body, err)
		}
		left, _ := io.ReadAll(r.remaining())
		wantLeft, _ := io.ReadAll(in)
		if !bytes.Equal(left, wantLeft) {
			t.Errorf("%q: left %q, want %q", raw, left, wantLeft)
		}
	})
}

// remaining is what comes after what has been taken.
func (r *Reader) remaining() io.Reader { return io.MultiReader(bytes.NewReader(r.Buffered()), r.src) }

func mayHaveBody(status int) bool { return status >= 200 && status != http.StatusNoContent }

// FuzzReadResponse compares with net/http: a response that this reader accepts means the same there. It is stricter than net/http in
// what docs/decisions.md says.
func FuzzReadResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: u\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nuntil close", "HTTP/1.1 204 None\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 304 Same\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, x\r\nX: y\r\n\r\nabc", "HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, head bool) {
		if bytes.HasPrefix(raw, crlf) {
			t.Skip("net/http wants the first line at once")
		}
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		r := newReader(bytes.NewReader(raw))
		var got message.Response
		_, framing, err := ReadResponse(r, nil, 64<<10, method, &got)
		if err != nil {
			return
		}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), &http.Request{Method: method})
		if err != nil && !mayHaveBody(got.Status) {
			return // what such a response says about its body means nothing here
		}
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", raw, err)
		}
		defer func() { _ = want.Body.Close() }()
		if got.Status != want.StatusCode || got.Minor != want.ProtoMinor {
			t.Fatalf("%q: got %d HTTP/1.%d, want %d HTTP/1.%d", raw, got.Status, got.Minor, want.StatusCode, want.ProtoMinor)
		}
		for _, field := range got.Header.Fields() {
			if !slices.Contains(want.Header.Values(field.Name), field.Value) {
				t.Errorf("%q: %s: %q is not in %q", raw, field.Name, field.Value, want.Header.Values(field.Name))
			}
		}
		body, err := drain(r, framing, got.Length)
		wantBody, wantErr := io.ReadAll(want.Body)
		if err == nil && (wantErr != nil || !bytes.Equal(body, wantBody)) {
			t.Errorf("%q: body %q, want %q, %v", raw, body, wantBody, wantErr)
		}
	})
}
