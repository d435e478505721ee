// Package knative is the filter for the headers that Knative's data plane keeps to itself: it answers network probes without
// waking anything, and removes what must not reach the user's container.
package knative

import (
	"net/http"

	"github.com/weft-dev/weft/mesh/filter"
)

// The headers, in canonical form.
const (
	probeHeader     = "K-Network-Probe"
	hashHeader      = "K-Network-Hash"
	revisionHeader  = "Knative-Serving-Revision"
	namespaceHeader = "Knative-Serving-Namespace"
)

// Filter answers probes.
type Filter struct {
	next filter.Handler
	// draining reports whether the proxy is about to stop.
	draining func() bool
}

var _ filter.Handler = (*Filter)(nil)

// New returns the filter before next. Draining tells whether this proxy is about to stop.
func New(next filter.Handler, draining func() bool) *Filter {
	return &Filter{next: next, draining: draining}
}

// Handle implements filter.Handler.
func (f *Filter) Handle(x *filter.Exchange) error {
	h := x.Request.Header
	delete(h, revisionHeader)
	delete(h, namespaceHeader)
	if probe, ok := h[probeHeader]; ok && len(probe) == 1 {
		f.probe(x, probe[0])
		return nil
	}
	return f.next.Handle(x)
}

// probe answers in the name of the component that is asked: "probe" is the ingress, "activator" and "queue" stand before the
// container, and "queue" means that there is an instance.
func (f *Filter) probe(x *filter.Exchange, kind string) {
	if hash, ok := x.Request.Header[hashHeader]; ok {
		x.Writer.Header()[hashHeader] = hash
	}
	switch {
	case f.draining():
		x.Reply(http.StatusServiceUnavailable, "text/plain; charset=utf-8", "draining")
	case kind == "probe":
		x.Reply(http.StatusOK, "text/plain; charset=utf-8", "")
	case kind == "activator":
		x.Reply(http.StatusOK, "text/plain; charset=utf-8", kind)
	case kind == "queue" && x.Backend.Gate.Usable() > 0:
		x.Reply(http.StatusOK, "text/plain; charset=utf-8", kind)
	case kind == "queue":
		x.Reply(http.StatusServiceUnavailable, "text/plain; charset=utf-8", "no instance is ready")
	default:
		x.Reply(http.StatusBadRequest, "text/plain; charset=utf-8", "unexpected probe header value: "+kind)
	}
}
