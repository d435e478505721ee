package engine

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
	x.body.stop(x)
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
}

func TestBufferLeavesAlone(t *testing.T) {
	t.Parallel()
	large := begin(t, http.MethodPost, strings.Repeat("x", maxBuffered+1))
	expects := new(Exchange)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("body"))
	r.Header.Set("Expect", "100-continue")
	expects.Begin(httptest.NewRecorder(), r)
	chunked := new(Exchange)
	r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.MultiReader(strings.NewReader("x")))
	r.ContentLength = -1
	chunked.Begin(httptest.NewRecorder(), r)
	for name, x := range map[string]*Exchange{"large": large, "expects": expects, "chunked": chunked, "none": begin(t, http.MethodGet, "")} {
		if err := x.Buffer(); err != nil || len(x.body.buffered) != 0 {
			t.Errorf("%s: read %d bytes, %v", name, len(x.body.buffered), err)
		}
	}
}

// TestCancelOfAnotherRequest checks that who is late does not cancel the next request of the connection.
func TestCancelOfAnotherRequest(t *testing.T) {
	t.Parallel()
	x := begin(t, http.MethodGet, "")
	before := x.current()
	x.Begin(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	x.cancelGeneration(before, ErrClientGone)
	if cause := x.Cause(); cause != nil {
		t.Errorf("cancelled: %v", cause)
	}
	x.Cancel(ErrCut)
	x.Cancel(ErrClientGone)
	if cause := x.Cause(); !errors.Is(cause, ErrCut) {
		t.Errorf("cause %v, want the first", cause)
	}
	if ctx := x.Context(); ctx.Err() == nil {
		t.Error("the context of a cancelled exchange goes on")
	}
}
