// Package knative is the filter for the headers that Knative's data plane keeps to itself: it answers network probes without
// waking anything, and removes what must not reach the user's container.
package knative

import (
	"net/http"

	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/message"
)

// internal are the headers between Knative's own parts.
var internal = message.SetOf(message.KnativeServingRevision, message.KnativeServingNamespace)

const textPlain = "text/plain; charset=utf-8"

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
	h := &x.Request.Header
	h.DelAll(internal)
	if h.Count(message.KNetworkProbe) == 1 {
		return f.probe(x, h.Get(message.KNetworkProbe))
	}
	return f.next.Handle(x)
}

// probe answers in the name of the component that is asked: "probe" is the ingress, "activator" and "queue" stand before the
// container, and "queue" means that there is an instance.
func (f *Filter) probe(x *filter.Exchange, kind string) error {
	if h := &x.Request.Header; h.Has(message.KNetworkHash) {
		x.Header.Add(message.KNetworkHash, h.Get(message.KNetworkHash))
	}
	switch {
	case f.draining():
		return x.Reply(http.StatusServiceUnavailable, textPlain, "draining")
	case kind == "probe":
		return x.Reply(http.StatusOK, textPlain, "")
	case kind == "activator":
		return x.Reply(http.StatusOK, textPlain, kind)
	case kind == "queue" && x.Backend.Gate.Usable() > 0:
		return x.Reply(http.StatusOK, textPlain, kind)
	case kind == "queue":
		return x.Reply(http.StatusServiceUnavailable, textPlain, "no instance is ready")
	}
	return x.Reply(http.StatusBadRequest, textPlain, "unexpected probe header value: "+kind)
}
