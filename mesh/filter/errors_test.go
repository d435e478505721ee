package filter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/activator"
	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/filter"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		want *filter.Error
	}{
		{"own", fmt.Errorf("x: %w", filter.Refuse(418, "teapot")), &filter.Error{Status: 418, Text: "teapot"}},
		{"queue", activator.ErrQueueFull, &filter.Error{Status: 503, Text: "pending request queue full", RetryAfter: 1}},
		{"nobody", activator.ErrNoEndpoint, &filter.Error{Status: 503, Text: "no instance is ready"}},
		{"nobody after a refusal", fmt.Errorf("%w: after %w", activator.ErrNoEndpoint, engine.ErrNotConnected), &filter.Error{Status: 502, Text: "no instance accepted the connection"}},
		{"no response", engine.ErrNoResponse, &filter.Error{Status: 502, Text: "the instance closed the connection without a valid response"}},
		{"client left", context.Canceled, nil},
		{"client left while parked", engine.ErrClientGone, nil},
		{"unknown", errors.New("x"), &filter.Error{Status: 500, Text: "internal error"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, filter.Explain(tt.err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		major       int
		contentType string
		err         *filter.Error
		status      int
		body        string
		header      map[string]string
	}{
		{"text", 1, "", &filter.Error{Status: 503, Text: "full", RetryAfter: 2}, 503, "full\n", map[string]string{
			"Retry-After": "2", "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff",
		}},
		{"grpc", 2, "application/grpc+proto", filter.Refuse(504, "late"), 200, "", map[string]string{
			"Grpc-Status": "4", "Grpc-Message": "late", "Content-Type": "application/grpc+proto",
		}},
		{"grpc of another kind", 2, "application/grpc", filter.Refuse(418, "odd"), 200, "", map[string]string{"Grpc-Status": "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
			r.ProtoMajor = tt.major
			r.Header.Set("Content-Type", tt.contentType)
			w := httptest.NewRecorder()
			x := new(filter.Exchange)
			x.Begin(w, r)
			if err := filter.Answer(x, tt.err); err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.status || w.Body.String() != tt.body || !x.Started() || x.Status != tt.status {
				t.Errorf("got %d %q", w.Code, w.Body)
			}
			for name, want := range tt.header {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestConclude(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		major       int
		contentType string
		length      string
		want        bool
		body        string
		trailer     http.Header
	}{
		{name: "stream", major: 1, want: true, body: "begun, late\n"},
		{name: "declared length", major: 1, length: "100", body: "begun, "},
		{name: "grpc", major: 2, contentType: "application/grpc", want: true, body: "begun, ", trailer: http.Header{"Grpc-Status": {"4"}, "Grpc-Message": {"late"}}},
		{name: "another type over the protocol of grpc", major: 2, contentType: "text/plain", want: true, body: "begun, late\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.length != "" {
					w.Header().Set("Content-Length", tt.length)
				}
				_, _ = io.WriteString(w, "begun, ")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			defer instance.Close()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.ProtoMajor = tt.major
			r.Header.Set("Content-Type", tt.contentType)
			w := &recorder{ResponseRecorder: httptest.NewRecorder(), flushed: make(chan struct{}, 8)}
			x := new(filter.Exchange)
			x.Begin(w, r)
			late := filter.Refuse(504, "late")
			go func() {
				<-w.flushed // what the instance has written is out
				x.Cancel(late)
			}()
			if err := x.Forward(engine.NewUpstream(instance.Listener.Addr().String()), engine.HTTP1); !errors.Is(err, engine.ErrCut) || !errors.Is(err, late) {
				t.Fatalf("Forward: %v", err)
			}
			if got := filter.Conclude(x, late); got != tt.want {
				t.Errorf("concluded: %v, want %v", got, tt.want)
			}
			if w.Body.String() != tt.body {
				t.Errorf("body %q, want %q", w.Body, tt.body)
			}
			if diff := cmp.Diff(tt.trailer, w.Result().Trailer); diff != "" {
				t.Errorf("trailer (-want +got):\n%s", diff)
			}
		})
	}
}

// recorder tells when the response has been flushed.
type recorder struct {
	*httptest.ResponseRecorder

	flushed chan struct{}
}

// Flush implements http.Flusher.
func (r *recorder) Flush() {
	r.ResponseRecorder.Flush()
	if r.Body.Len() > 0 {
		r.flushed <- struct{}{}
	}
}
