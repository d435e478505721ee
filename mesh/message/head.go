package message

import (
	"net/url"
	"strings"
)

// Request is the head of a request.
type Request struct {
	Method string
	// Target is what the client asks for: a path with query, "*", or for CONNECT an authority. Every byte is the client's. Of a target
	// in absolute form it is the part after the authority.
	Target string
	// Host is the authority that the request is for, with the port if the client gave one. It is not among the fields of Header.
	Host string
	// Major and Minor are the version of HTTP on the client's connection.
	Major, Minor int
	// Header is without what belongs to the connection: framing, hop-by-hop fields and what they name.
	Header Header
	// Length is that of the body in bytes; negative when only its end will tell.
	Length int64
	// Upgrade is the protocol that the client wants to switch to, or "".
	Upgrade string
	// TrailersWanted is set when the client takes trailers ("TE: trailers").
	TrailersWanted bool
	// Trailers are the names of the trailers that are announced, as one list.
	Trailers string
	// Close is set when the client wants its connection closed after the response.
	Close bool
}

// Reset makes r empty and keeps the room of its header.
func (r *Request) Reset() {
	h := r.Header
	h.Reset()
	*r = Request{Header: h}
}

// Path is the path of the target as the instance will understand it: decoded, without the query.
func (r *Request) Path() string {
	path, _, _ := strings.Cut(r.Target, "?")
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return path // not possible: such a target is refused
	}
	return decoded
}

// Response is the head of a response.
type Response struct {
	Status int
	// Reason is the text after the status, of HTTP/1 only.
	Reason string
	// Major and Minor are the version of HTTP on the instance's connection.
	Major, Minor int
	// Header is without what belongs to the connection.
	Header Header
	// Length is that of the body in bytes; negative when only its end will tell. Of a response to HEAD it is the length that the header
	// gives, and there is no body.
	Length int64
	// Upgrade is the protocol of a 101 response, or "".
	Upgrade string
	// Trailers are the names of the trailers that are announced, as one list.
	Trailers string
	// Close is set when the instance closes its connection after the response.
	Close bool
}

// Reset makes r empty and keeps the room of its header.
func (r *Response) Reset() {
	h := r.Header
	h.Reset()
	*r = Response{Header: h}
}

// hopByHop are the fields that belong to one connection (RFC 9110 section 7.6.1 and the names that predate it).
var hopByHop = SetOf(Connection, ProxyConnection, KeepAlive, ProxyAuthenticate, ProxyAuthorization, TE, Trailer, TransferEncoding, Upgrade)

// RemoveHopByHop removes what belongs to one connection, the fields that Connection names among it. It must come before the proxy adds
// fields of its own, or a client could name those.
func (h *Header) RemoveHopByHop() {
	if h.Has(Connection) {
		h.removeNamed()
	}
	h.DelAll(hopByHop)
}

// removeNamed removes the fields that Connection names.
func (h *Header) removeNamed() {
	for list := h.Joined(Connection); list != ""; {
		var name string
		name, list, _ = strings.Cut(list, ",")
		name = strings.Trim(name, " \t")
		if id := Identify(name); name != "" && Set(bit(id))&hopByHop == 0 {
			h.DelMatch(Match{name: name, id: id})
		}
	}
}

// UpgradeType is the protocol that a message wants to switch to, or "". HTTP/2 over an upgraded connection was removed by RFC 9113, and a
// proxy must not pass the wish on.
func (h *Header) UpgradeType() string {
	if !h.Has(Upgrade) || !h.Token(Connection, "upgrade") {
		return ""
	}
	if t := h.Get(Upgrade); !EqualFold(t, "h2c") {
		return t
	}
	return ""
}
