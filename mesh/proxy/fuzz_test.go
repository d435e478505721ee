package proxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// seen is what an instance sees of a request.
type seen struct {
	Method, URI, Host, Body string
	Header                  map[string][]string
}

// exchange sends raw bytes and returns the status and, when the instance answered, what it saw.
func exchange(t *testing.T, address, raw string) (int, *seen) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, raw)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }()
	if res.Header.Get("X-Instance") == "" {
		return res.StatusCode, nil
	}
	s := new(seen)
	if err := json.NewDecoder(res.Body).Decode(s); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, s
}

var absolute = regexp.MustCompile(`^(?i:https?)://[a-z0-9.-]+(:[0-9]*)?([/?].*)?$`)

// stricter reports whether the proxy refuses what net/http takes; docs/decisions.md says why.
func stricter(method, uri, header string) bool {
	for line := range strings.SplitSeq(header, "\r\n") {
		if strings.Contains(line, "\n") || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			return true // a bare LF, or a folded line
		}
	}
	return uri == "*" && method != http.MethodOptions || // it asks about the host as a whole
		uri != "*" && !strings.HasPrefix(uri, "/") && !absolute.MatchString(uri) || // other schemes, empty or odd authorities
		strings.Contains(uri, "@") || // user information
		strings.Count(header, ",") > 30 || strings.Count(header, "\n") > 100 // more names in Connection, or fields, than anybody sends
}

// FuzzAgainstDirect sends the same bytes to an instance directly and through the proxy. The instance must see the same request, or both
// must refuse it. Direct is net/http, whose parser has met more than any corpus here will.
func FuzzAgainstDirect(f *testing.F) {
	for _, seed := range [][4]string{
		{"GET", "/a/b?c=d", "X-A: b", ""},
		{"POST", "/%2F%41|\"<>^`{}", "Content-Type: text/plain\r\nX-A: 1\r\nX-A: 2", "body"},
		{"GET", "//a/../b;c?x;y", "Connection: x-a\r\nX-A: 1", ""},
		{"OPTIONS", "*", "TE: trailers", ""},
		{"DELETE", "http://other.test/x?", "Cookie: a=b\r\nCookie: c=d", ""},
		{"PUT", "/?", "Accept-Encoding: gzip\r\nUser-Agent: x", "b"},
		{"PATCH", "/a b", "Bad Name: x", ""},
		{"GET", "/", " folded: x", ""},
		{"GET", "/", "Content-Length: 3", ""},
		{"POST", "/", "Transfer-Encoding: chunked\r\nContent-Length: 3", "x"},
		{"GET", "/\x01", "X-\xff: y", ""},
		{"BREW", "/", "X-A: \x80\xff", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	h := start(f)
	instance := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Instance", "1")
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, string(body), r.Header})
	})
	direct := server(f, instance)
	h.backend(revision("fuzz"), direct)
	h.route("fuzz.test", revision("fuzz").GetName())
	h.route("other.test", revision("fuzz").GetName())
	f.Fuzz(func(t *testing.T, method, uri, header, body string) {
		if strings.Contains(uri, "\n") || strings.Contains(method, "\n") || strings.Contains(header, "\r\n\r\n") || method == "CONNECT" || method == "HEAD" {
			t.Skip("another request than meant, or one that answers without a body")
		}
		if lower := strings.ToLower(header); strings.Contains(lower, "upgrade") || strings.Contains(lower, "expect") || strings.Contains(lower, "length") ||
			strings.Contains(lower, "transfer-encoding") || strings.Contains(lower, "host") || strings.Contains(lower, "k-network") {
			t.Skip("has tests of its own")
		}
		if stricter(method, uri, header) {
			t.Skip("refused on purpose")
		}
		length := ""
		if body != "" {
			length = fmt.Sprintf("Content-Length: %d\r\n", len(body))
		}
		raw := method + " " + uri + " HTTP/1.1\r\nHost: fuzz.test\r\n" + length + header + "\r\n\r\n" + body
		wantStatus, want := exchange(t, direct, raw)
		gotStatus, got := exchange(t, h.public, raw)
		if (want == nil) != (got == nil) {
			if want != nil && gotStatus == http.StatusNotFound {
				return // a host of which only the proxy knows that it does not exist
			}
			t.Fatalf("direct %d %v, through the proxy %d %v", wantStatus, want, gotStatus, got)
		}
		if want == nil {
			return
		}
		// Zero and none mean the same, and the spelling is the proxy's own. That the length is right shows in the body.
		delete(got.Header, "Content-Length")
		delete(want.Header, "Content-Length")
		for name := range got.Header {
			switch name {
			case "Forwarded", "Traceparent", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto":
				delete(got.Header, name)
				delete(want.Header, name)
			}
		}
		for _, line := range want.Header["Connection"] {
			for name := range strings.SplitSeq(line, ",") {
				delete(want.Header, http.CanonicalHeaderKey(strings.Trim(name, " \t")))
			}
		}
		for _, name := range []string{
			"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
			"Knative-Serving-Revision", "Knative-Serving-Namespace",
		} {
			delete(want.Header, name)
			delete(got.Header, name)
		}
		if strings.HasPrefix(uri, "http:") || strings.HasPrefix(uri, "https:") {
			want.URI, got.URI = "", "" // the instance is not a proxy: it gets the path only
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-direct +proxy):\n%s", raw, diff)
		}
	})
}
