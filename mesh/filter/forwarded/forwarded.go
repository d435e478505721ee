// Package forwarded is the filter that tells the instance who asked, and how: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host
// and Forwarded (RFC 7239), which the Knative runtime contract demands.
package forwarded

import (
	"strings"

	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/message"
)

// Filter sets the headers.
type Filter struct {
	next filter.Handler
}

var _ filter.Handler = (*Filter)(nil)

// New returns the filter before next.
func New(next filter.Handler) *Filter { return &Filter{next: next} }

// Handle implements filter.Handler. The lists grow by the client's address, so that their last element is what this proxy saw and
// the earlier ones are what the client claims. Scheme and host are what this proxy saw.
func (f *Filter) Handle(x *filter.Exchange) error {
	h := &x.Request.Header
	proto := "http"
	if x.Secure {
		proto = "https"
	}
	b := appendEarlier(x.Scratch(), h)
	b = append(b, "for="...)
	b = appendNode(b, x.Remote)
	b = append(b, ";host="...)
	b = appendQuoted(b, x.Request.Host)
	b = append(b, ";proto="...)
	h.Set(message.Forwarded, x.Keep(append(b, proto...)))

	b = x.Scratch()
	if list := h.Joined(message.XForwardedFor); list != "" {
		b = append(b, list...)
		b = append(b, ", "...)
	}
	h.Set(message.XForwardedFor, x.Keep(append(b, x.Remote...)))
	h.Set(message.XForwardedProto, proto)
	h.Set(message.XForwardedHost, x.Request.Host)
	return f.next.Handle(x)
}

// appendEarlier appends the Forwarded list so far, made up from X-Forwarded-For when the hop before knew only that.
func appendEarlier(b []byte, h *message.Header) []byte {
	if list := h.Joined(message.Forwarded); list != "" {
		b = append(b, list...)
		return append(b, ", "...)
	}
	for list := h.Joined(message.XForwardedFor); list != ""; {
		var part string
		part, list, _ = strings.Cut(list, ",")
		b = append(b, "for="...)
		b = appendNode(b, strings.TrimSpace(part))
		b = append(b, ", "...)
	}
	return b
}

// appendNode spells an address as RFC 7239 section 6 wants it: IPv6 in brackets and quotes.
func appendNode(b []byte, address string) []byte {
	if strings.IndexByte(address, ':') >= 0 && !strings.HasPrefix(address, "[") {
		b = append(b, `"[`...)
		b = append(b, address...)
		return append(b, `]"`...)
	}
	return appendQuoted(b, address)
}

// appendQuoted makes a quoted string of what is not a token.
func appendQuoted(b []byte, s string) []byte {
	token := s != ""
	for i := 0; token && i < len(s); i++ {
		token = tokenByte(s[i])
	}
	if token {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
