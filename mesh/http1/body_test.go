package http1

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

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
