package proxy_test

import (
	"testing"

	"github.com/weft-dev/weft/mesh/config"
)

// lines hands on what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestAccessLog switches the log on, changes it, and switches it off and on, while the proxy serves.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	h := start(t)
	b := revision("logged")
	h.backend(b, server(t, text("hello")))
	h.route("logged.test", b.GetName())
	get := func(path string) {
		t.Helper()
		if _, body := h.get("logged.test", path); body != "hello" {
			t.Fatalf("got %q", body)
		}
	}
	set := func(template string) {
		t.Helper()
		h.apply(config.AccessLogType, &config.AccessLog{Name: config.RequestLog, Template: template})
	}
	expect := func(want string) {
		t.Helper()
		if got := <-h.lines; got != want {
			t.Errorf("line %q, want %q", got, want)
		}
	}
	get("/before")
	set("{{.Request.URL.Path}} {{.Response.Code}} {{.Response.Size}} {{.Revision.Name}} {{.Revision.PodIP}}")
	get("/a")
	expect("/a 200 5 logged 127.0.0.1\n")
	set("{{.Revision.Namespace}}")
	get("/b")
	expect("default\n")
	if err := h.Apply(config.AccessLogType, []config.Resource{&config.AccessLog{Name: config.RequestLog, Template: "{{"}}, nil); err == nil {
		t.Error("a template that does not parse was taken")
	}
	get("/c")
	expect("default\n")
	if err := h.Apply(config.AccessLogType, nil, []string{config.RequestLog}); err != nil {
		t.Fatal(err)
	}
	get("/silent")
	set("{{.Request.URL.Path}}")
	get("/d")
	expect("/d\n")
}
