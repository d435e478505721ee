package accesslog_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/mesh/balance"
	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/filter/accesslog"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// knative is the template that Knative has by default.
const knative = `{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", ` +
	`"requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize": "{{.Response.Size}}", ` +
	`"userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", ` +
	`"referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "protocol": "{{.Request.Proto}}"}, ` +
	`"traceId": "{{.TraceID}}"}`

type handler func(x *filter.Exchange) error

func (h handler) Handle(x *filter.Exchange) error { return h(x) }

// answer is an instance that answers with a body of five bytes.
func answer(x *filter.Exchange) error {
	x.Endpoint = &balance.Endpoint{IP: "10.0.0.7", Pod: "default/hello-00001-abc"}
	return x.Reply(http.StatusTeapot, "text/plain", "short")
}

// log is where lines go.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func exchange(t *testing.T, header http.Header) *filter.Exchange {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/path?q=1", strings.NewReader("body"))
	r.RemoteAddr = "192.0.2.1:1234"
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	r.Header.Set("User-Agent", `a "quoted" agent`)
	maps.Copy(r.Header, header)
	x := new(filter.Exchange)
	x.Begin(httptest.NewRecorder(), r)
	x.Settings = &filter.Settings{Labels: telemetry.Labels{Namespace: "default", Service: "hello", Configuration: "hello", Revision: "hello-00001"}}
	return x
}

func TestLines(t *testing.T) {
	t.Parallel()
	failed := errors.New("cut")
	for _, tt := range []struct {
		name     string
		template string
		probes   bool
		header   http.Header
		next     handler
		want     []string
		wantErr  error
	}{
		{name: "off", next: answer},
		{name: "a line", template: "{{.Request.Method}} {{.Response.Code}} {{.Response.Size}}", next: answer, want: []string{"POST 418 5\n"}},
		{name: "one line feed", template: "a\n\n", next: answer, want: []string{"a\n"}},
		{
			name:     "the revision",
			template: "{{.Revision.Namespace}} {{.Revision.Service}} {{.Revision.Configuration}} {{.Revision.Name}} {{.Revision.PodName}} {{.Revision.PodIP}}",
			next:     answer, want: []string{"default hello hello hello-00001 hello-00001-abc 10.0.0.7\n"},
		},
		{name: "no instance", template: "{{.Revision.PodName}}|{{.Revision.PodIP}}", next: func(*filter.Exchange) error { return nil }, want: []string{"|\n"}},
		{name: "the trace", template: "{{.TraceID}}", next: answer, want: []string{"0af7651916cd43dd8448eb211c80319c\n"}},
		{
			name: "a trace of B3", template: "{{.TraceID}}", next: answer,
			header: http.Header{"Traceparent": nil, "X-B3-Traceid": {"463ac35c9f6413ad"}}, want: []string{"463ac35c9f6413ad\n"},
		},
		{name: "a client that left", template: "{{.Response.Code}}", next: func(*filter.Exchange) error { return failed }, want: []string{"499\n"}, wantErr: failed},
		{
			name: "the body is not the template's", template: `[{{.Request.FormValue "a"}}]`,
			next: func(x *filter.Exchange) error {
				if !x.Resendable() {
					t.Error("the log has read the body")
				}
				return nil
			}, want: []string{"[]\n"},
		},
		{
			name: "a template that fails", template: "{{.Request.Nonsense}}", next: answer,
			want: []string{`access log: template: accesslog:1:10: executing "accesslog" at <.Request.Nonsense>: can't evaluate field Nonsense in type *http.Request: POST "/path?q=1" 418` + "\n"},
		},
		{name: "a network probe", template: "a", header: http.Header{"K-Network-Probe": {"probe"}}, next: answer},
		{name: "a probe of the kubelet", template: "a", header: http.Header{"User-Agent": {"kube-probe/1.36"}}, next: answer},
		{name: "a probe where they are logged", template: "a", probes: true, header: http.Header{"K-Network-Probe": {"probe"}}, next: answer, want: []string{"a\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out := new(log)
			l := accesslog.NewLog(out)
			if tt.template != "" {
				if err := l.Set(tt.template, tt.probes); err != nil {
					t.Fatal(err)
				}
			}
			if err := accesslog.New(tt.next, l).Handle(exchange(t, tt.header)); !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, out.lines); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTemplateOfKnative makes sure that Knative's own template makes JSON.
func TestTemplateOfKnative(t *testing.T) {
	t.Parallel()
	out := new(log)
	l := accesslog.NewLog(out)
	if err := l.Set(knative, false); err != nil {
		t.Fatal(err)
	}
	if err := accesslog.New(handler(answer), l).Handle(exchange(t, nil)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		HTTPRequest map[string]any `json:"httpRequest"`
		TraceID     string         `json:"traceId"`
	}
	if err := json.Unmarshal([]byte(strings.Join(out.lines, "")), &got); err != nil {
		t.Fatalf("%v: %q", err, out.lines)
	}
	want := map[string]any{
		"requestMethod": "POST", "requestUrl": "/path?q=1", "requestSize": "4", "status": 418., "responseSize": "5", "userAgent": `a "quoted" agent`,
		"remoteIp": "192.0.2.1:1234", "serverIp": "10.0.0.7", "referer": "", "protocol": "HTTP/1.1", "latency": got.HTTPRequest["latency"],
	}
	if diff := cmp.Diff(want, got.HTTPRequest); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSetAndOff(t *testing.T) {
	t.Parallel()
	out := new(log)
	l := accesslog.NewLog(out)
	f := accesslog.New(handler(answer), l)
	handle := func() {
		if err := f.Handle(exchange(t, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Set("first", false); err != nil {
		t.Fatal(err)
	}
	handle()
	if err := l.Set("{{", false); err == nil {
		t.Error("a template that does not parse was taken")
	}
	handle()
	l.Off()
	handle()
	if diff := cmp.Diff([]string{"first\n", "first\n"}, out.lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// TestPanic logs a request whose handling panics, which is how a response that was cut ends.
func TestPanic(t *testing.T) {
	t.Parallel()
	out := new(log)
	l := accesslog.NewLog(out)
	if err := l.Set("{{.Response.Code}}", false); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = accesslog.New(handler(func(*filter.Exchange) error { panic(http.ErrAbortHandler) }), l).Handle(exchange(t, nil))
	}()
	if diff := cmp.Diff([]string{"499\n"}, out.lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// TestOffAllocatesNothing is the bar for a log that nobody wants.
func TestOffAllocatesNothing(t *testing.T) {
	x := exchange(t, nil)
	f := accesslog.New(handler(func(*filter.Exchange) error { return nil }), accesslog.NewLog(io.Discard))
	if n := testing.AllocsPerRun(100, func() { _ = f.Handle(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLine(b *testing.B) {
	l := accesslog.NewLog(io.Discard)
	if err := l.Set(knative, false); err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	x := new(filter.Exchange)
	x.Begin(httptest.NewRecorder(), r)
	x.Settings = &filter.Settings{}
	f := accesslog.New(handler(func(*filter.Exchange) error { return nil }), l)
	b.ReportAllocs()
	for b.Loop() {
		_ = f.Handle(x)
	}
}
