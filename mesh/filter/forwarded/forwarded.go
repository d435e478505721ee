// Package forwarded is the filter that tells the instance who asked, and how: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host
// and Forwarded (RFC 7239), which the Knative runtime contract demands.
package forwarded

import (
	"net"
	"net/http"
	"strings"

	"github.com/weft-dev/weft/mesh/filter"
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
	h := x.Request.Header
	client, _, err := net.SplitHostPort(x.Request.RemoteAddr)
	if err != nil {
		client = "unknown"
	}
	proto := "http"
	if x.Secure {
		proto = "https"
	}
	element := "for=" + node(client) + ";host=" + quote(x.Request.Host) + ";proto=" + proto
	h["Forwarded"] = []string{join(earlier(h), element)}
	h["X-Forwarded-For"] = []string{join(strings.Join(h["X-Forwarded-For"], ", "), client)}
	h["X-Forwarded-Proto"] = []string{proto}
	h["X-Forwarded-Host"] = []string{x.Request.Host}
	return f.next.Handle(x)
}

// earlier is the Forwarded list so far, made up from X-Forwarded-For when the hop before knew only that.
func earlier(h http.Header) string {
	if list := h["Forwarded"]; len(list) > 0 {
		return strings.Join(list, ", ")
	}
	var b strings.Builder
	for _, line := range h["X-Forwarded-For"] {
		for part := range strings.SplitSeq(line, ",") {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			b.WriteString("for=" + node(strings.TrimSpace(part)))
		}
	}
	return b.String()
}

func join(list, element string) string {
	if list == "" {
		return element
	}
	return list + ", " + element
}

// node spells an address as RFC 7239 section 6 wants it: IPv6 in brackets and quotes.
func node(address string) string {
	if strings.Contains(address, ":") && !strings.HasPrefix(address, "[") {
		return `"[` + address + `]"`
	}
	return quote(address)
}

// quote makes a quoted string of what is not a token.
func quote(s string) string {
	for i := range len(s) {
		if c := s[i]; !tokenByte(c) {
			return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
