package engine

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRemoveHopByHop(t *testing.T) {
	t.Parallel()
	h := http.Header{
		"Connection": {"keep-alive, x-one", " X-Two ,, "}, "X-One": {"1"}, "X-Two": {"2"}, "X-Three": {"3"}, "Keep-Alive": {"x"},
		"Proxy-Connection": {"x"}, "Proxy-Authenticate": {"x"}, "Proxy-Authorization": {"x"}, "Te": {"x"}, "Trailer": {"x"},
		"Transfer-Encoding": {"x"}, "Upgrade": {"x"},
	}
	removeHopByHop(h)
	if diff := cmp.Diff(http.Header{"X-Three": {"3"}}, h); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClientCannotTakeAwayHowItCame(t *testing.T) {
	t.Parallel()
	h := http.Header{
		"Connection": {"x-forwarded-for, Forwarded, traceparent, X-FORWARDED-PROTO, x-one"}, "X-One": {"1"},
		"X-Forwarded-For": {"a"}, "Forwarded": {"b"}, "Traceparent": {"c"}, "X-Forwarded-Proto": {"d"},
	}
	removeHopByHop(h)
	want := http.Header{"X-Forwarded-For": {"a"}, "Forwarded": {"b"}, "Traceparent": {"c"}, "X-Forwarded-Proto": {"d"}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpgradeType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		header http.Header
		want   string
	}{
		{"none", http.Header{}, ""},
		{"websocket", http.Header{"Connection": {"keep-alive, upgrade"}, "Upgrade": {"websocket"}}, "websocket"},
		{"not a connection option", http.Header{"Connection": {"keep-alive"}, "Upgrade": {"websocket"}}, ""},
		{"h2c", http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := upgradeType(tt.header); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func begin(t *testing.T, method, body string) *Exchange {
	t.Helper()
	x := new(Exchange)
	x.Begin(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body)))
	return x
}

// TestBodyOfOneAttempt checks that an attempt that has been given up gets no more of the body.
func TestBodyOfOneAttempt(t *testing.T) {
	t.Parallel()
	x := begin(t, http.MethodPut, "body")
	first := x.body.attempt()
	second := x.body.attempt()
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, errBodyTaken) {
		t.Errorf("the first attempt: %v", err)
	}
	if !x.Replayable() {
		t.Error("nothing has been read")
	}
	if got, err := io.ReadAll(second); string(got) != "body" || err != nil {
		t.Errorf("the second attempt: %q, %v", got, err)
	}
	if x.Resendable() || x.Replayable() || !x.body.complete() {
		t.Error("the body has been read")
	}
	x.body.stop(x.control)
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, errBodyTaken) {
		t.Errorf("after the end: %v", err)
	}
}

// TestBufferedBody checks that what was read while parked can be sent again and again.
func TestBufferedBody(t *testing.T) {
	t.Parallel()
	x := begin(t, http.MethodPost, "body")
	for range 2 {
		if err := x.Buffer(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if got, err := io.ReadAll(x.body.attempt()); string(got) != "body" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if !x.Resendable() || x.Replayable() {
			t.Error("a buffered body can be sent again, but POST is not idempotent")
		}
	}
	if !x.Watched() {
		t.Error("the whole body is here")
	}
}

func TestBufferLeavesAlone(t *testing.T) {
	t.Parallel()
	large := begin(t, http.MethodPost, strings.Repeat("x", maxBuffered+1))
	expects := begin(t, http.MethodPost, "body")
	expects.Request.Header.Set("Expect", "100-continue")
	chunked := new(Exchange)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.MultiReader(strings.NewReader("x")))
	r.ContentLength = -1
	chunked.Begin(httptest.NewRecorder(), r)
	for name, x := range map[string]*Exchange{"large": large, "expects": expects, "chunked": chunked, "none": begin(t, http.MethodGet, "")} {
		if err := x.Buffer(); err != nil || len(x.body.buffered) != 0 {
			t.Errorf("%s: read %d bytes, %v", name, len(x.body.buffered), err)
		}
	}
}
