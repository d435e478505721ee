// Package accesslog is the filter that writes a line per request, shaped by a template, as Knative's request log does. The proxy
// sets it up and gives it the template that the control plane distributes. While there is none it costs one atomic load.
// It knows no config maps and must not import Kubernetes.
package accesslog

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"text/template"
	"time"

	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/message"
)

// statusClientGone is logged for a request whose client left before there was an answer; no response has it.
const statusClientGone = 499

// Log writes the lines. It is off until Set.
type Log struct {
	out    io.Writer
	format atomic.Pointer[format]
	lines  sync.Pool
}

// format is how a line looks. It is immutable.
type format struct {
	template *template.Template
	probes   bool
}

// NewLog returns a Log that writes each line to out by one call of Write. Calls are concurrent.
func NewLog(out io.Writer) *Log {
	return &Log{out: out, lines: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
}

// Parse says whether a text is a template.
func Parse(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (*template.Template, error) {
	t, err := template.New("accesslog").Parse(strings.TrimRight(text, "\n") + "\n")
	if err != nil {
		return nil, fmt.Errorf("parsing the template of the access log: %w", err)
	}
	return t, nil
}

// Set takes a template of text/template over an Entry into use. Without probes, requests by which somebody only looks whether there
// is an answer leave no line. A template that does not parse changes nothing.
func (l *Log) Set(text string, probes bool) error {
	t, err := parse(text)
	if err != nil {
		return err
	}
	l.format.Store(&format{template: t, probes: probes})
	return nil
}

// Off stops the log.
func (l *Log) Off() { l.format.Store(nil) }

// Entry is what a template is applied to. Its shape is Knative's.
type Entry struct {
	Request  *http.Request
	Response Response
	Revision Revision
	// TraceID is that of the traceparent header, or of B3.
	TraceID string
}

// Response is what the client got.
type Response struct {
	// Code is the status, 499 when the client left before one was sent.
	Code int
	// Size is the length of the body in bytes, and Latency the time from the request's first byte to the response's last in seconds.
	Size    int64
	Latency float64
}

// Revision is who answered. Where no instance did, PodName and PodIP are empty.
type Revision struct {
	Name, Namespace, Service, Configuration string
	PodName, PodIP                          string
}

// Filter logs requests.
type Filter struct {
	next filter.Handler
	log  *Log
}

var _ filter.Handler = (*Filter)(nil)

// New returns the filter before next.
func New(next filter.Handler, log *Log) *Filter { return &Filter{next: next, log: log} }

// Handle implements filter.Handler.
func (f *Filter) Handle(x *filter.Exchange) error {
	format := f.log.format.Load()
	if format == nil || (!format.probes && probe(&x.Request.Header)) {
		return f.next.Handle(x)
	}
	// Deferred, so that a request that panics is logged too.
	defer func() { f.log.write(format, x) }()
	return f.next.Handle(x)
}

var (
	kubeletProbe = message.MatchName("K-Kubelet-Probe")
	userAgent    = message.MatchName("User-Agent")
	traceB3      = message.MatchName("X-B3-Traceid")
)

// probe says whether a request is one of a prober: kubelet's, or one of the network.
func probe(h *message.Header) bool {
	if _, kubelet := h.Only(kubeletProbe); kubelet || h.Has(message.KNetworkProbe) {
		return true
	}
	agent, _ := h.Only(userAgent)
	return strings.HasPrefix(agent, "kube-probe/")
}

func (l *Log) write(format *format, x *filter.Exchange) {
	line, _ := l.lines.Get().(*bytes.Buffer)
	defer l.lines.Put(line)
	line.Reset()
	entry := entryOf(x)
	if err := format.template.Execute(line, entry); err != nil {
		line.Reset()
		fmt.Fprintf(line, "access log: %v: %s %q %d\n", err, x.Request.Method, x.Request.Target, entry.Response.Code)
	}
	// A log that cannot be written must not fail the request.
	_, _ = l.out.Write(line.Bytes())
}

func entryOf(x *filter.Exchange) Entry {
	entry := Entry{
		Request:  x.HTTPRequest(),
		Response: Response{Code: x.Status, Size: x.Size(), Latency: time.Since(x.Begun).Seconds()},
		TraceID:  traceID(&x.Request.Header),
	}
	if entry.Response.Code == 0 {
		entry.Response.Code = statusClientGone
	}
	if x.Endpoint != nil {
		_, entry.Revision.PodName, _ = strings.Cut(x.Endpoint.Pod, "/")
		entry.Revision.PodIP = x.Endpoint.IP
	}
	if x.Settings != nil {
		l := x.Settings.Labels
		entry.Revision.Name, entry.Revision.Namespace = l.Revision, l.Namespace
		entry.Revision.Service, entry.Revision.Configuration = l.Service, l.Configuration
	}
	return entry
}

// traceID is the second part of a traceparent (W3C Trace Context, section 3.2), or what B3 has in a header of its own.
func traceID(h *message.Header) string {
	if _, rest, ok := strings.Cut(h.Get(message.Traceparent), "-"); ok {
		if id, _, ok := strings.Cut(rest, "-"); ok {
			return id
		}
	}
	id, _ := h.Only(traceB3)
	return id
}
