// Package trace is the filter that begins a trace (W3C Trace Context) where the client has not, so that everything a request
// causes can be found by one id.
package trace

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/message"
)

// Filter sets traceparent.
type Filter struct {
	next filter.Handler
}

var _ filter.Handler = (*Filter)(nil)

// New returns the filter before next.
func New(next filter.Handler) *Filter { return &Filter{next: next} }

// Handle implements filter.Handler.
func (f *Filter) Handle(x *filter.Exchange) error {
	if h := &x.Request.Header; !h.Has(message.Traceparent) {
		h.Add(message.Traceparent, x.Keep(appendParent(x.Scratch())))
	}
	return f.next.Handle(x)
}

// appendParent appends a traceparent of version 00 with random ids, not sampled: the proxy itself records no span.
func appendParent(b []byte) []byte {
	var id [24]byte
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())   //nolint:gosec // an id, no secret
	binary.BigEndian.PutUint64(id[8:16], rand.Uint64()) //nolint:gosec // likewise
	// An id of zeros is not valid; the lowest bit keeps both ids from it.
	id[15] |= 1
	binary.BigEndian.PutUint64(id[16:], rand.Uint64()|1) //nolint:gosec // likewise
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, id[:16])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[16:])
	return append(b, "-00"...)
}
