package engine

import (
	"net/http"
	"net/textproto"
	"strings"
)

// removeHopByHop removes the headers that belong to one connection (RFC 9110 section 7.6.1 and the names that predate it).
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")); name != "" && !proxied(name) {
				delete(h, name)
			}
		}
	}
	delete(h, "Connection")
	delete(h, "Proxy-Connection")
	delete(h, "Keep-Alive")
	delete(h, "Proxy-Authenticate")
	delete(h, "Proxy-Authorization")
	delete(h, "Te")
	delete(h, "Trailer")
	delete(h, "Transfer-Encoding")
	delete(h, "Upgrade")
}

// proxied says whether a header says how a request came. A client could otherwise have the proxy take away what it has just added, and
// so hide where it comes from.
func proxied(name string) bool {
	return name == "Forwarded" || name == "Traceparent" || strings.HasPrefix(name, "X-Forwarded-")
}

// hasToken reports whether a comma-separated header holds token, in any case.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// upgradeType is the protocol that a message wants to switch to, or "". HTTP/2 over an upgraded connection was removed by RFC
// 9113, and a proxy must not pass the wish on.
func upgradeType(h http.Header) string {
	if _, ok := h["Upgrade"]; !ok || !hasToken(h["Connection"], "upgrade") {
		return ""
	}
	if t := h.Get("Upgrade"); !strings.EqualFold(t, "h2c") {
		return t
	}
	return ""
}

// webSocketCase restores the spelling of RFC 6455, which some HTTP/1.1 peers insist on.
func webSocketCase(h http.Header) {
	const canonical, wanted = "Sec-Websocket-", "Sec-WebSocket-"
	for name, values := range h {
		if rest, ok := strings.CutPrefix(name, canonical); ok {
			delete(h, name)
			h[wanted+rest] = values
		}
	}
}
