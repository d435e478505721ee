package http1

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/weft-dev/weft/mesh/message"
)

// ReadRequest reads the head of a request, of at most limit bytes. The request's strings lie in buf, which is returned as it has grown
// and must not be used again before the request is done with. An error of type *Error is the client's mistake; io.EOF means that no
// byte came.
func ReadRequest(r *Reader, buf []byte, limit int, req *message.Request) ([]byte, error) {
	req.Reset()
	buf, err := readHead(r, buf[:0], limit)
	if err != nil {
		return buf, err
	}
	line, fields, err := nextLine(buf)
	if err != nil {
		return buf, err
	}
	if err := parseRequestLine(line, req); err != nil {
		return buf, err
	}
	if err := parseFields(fields, &req.Header); err != nil {
		return buf, err
	}
	return buf, finishRequest(req)
}

// CheckRequest refuses a request of HTTP/2 that would be another one in HTTP/1, where spaces end the method and the target. Its names
// and values were checked when it was read.
func CheckRequest(req *message.Request) error {
	switch {
	case req.Method == "" || !allOf(req.Method, tokenByte):
		return errMethod
	case req.Target == "" || !allOf(req.Target, targetByte):
		return errTarget
	case !validHost(req.Host):
		return errHost
	}
	return splitTarget(req)
}

func parseRequestLine(line []byte, req *message.Request) error {
	first, last := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if first < 1 || last == first {
		return errStartLine
	}
	method, target := line[:first], line[first+1:last]
	if !all(method, tokenByte) {
		return errMethod
	}
	switch string(line[last+1:]) {
	case "HTTP/1.1":
		req.Major, req.Minor = 1, 1
	case "HTTP/1.0":
		req.Major, req.Minor = 1, 0
	default:
		if !bytes.HasPrefix(line[last+1:], []byte("HTTP/")) {
			return errStartLine
		}
		return errVersion
	}
	if len(target) == 0 || !all(target, targetByte) {
		return errTarget
	}
	req.Method, req.Target = methodText(method), text(target)
	return nil
}

// methodText returns a constant for the usual methods, so that comparing them compares pointers.
func methodText(b []byte) string {
	switch string(b) {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodPost:
		return http.MethodPost
	case http.MethodHead:
		return http.MethodHead
	case http.MethodPut:
		return http.MethodPut
	}
	return text(b)
}

// finishRequest takes what concerns the connection out of the header.
func finishRequest(req *message.Request) error {
	h := &req.Header
	if err := checkNamed(h); err != nil {
		return err
	}
	if h.Count(message.Host) > 1 || (req.Minor > 0 && !h.Has(message.Host)) {
		return errHost
	}
	req.Host = h.Get(message.Host)
	if !validHost(req.Host) {
		return errHost
	}
	h.Del(message.Host)
	if err := splitTarget(req); err != nil {
		return err
	}
	length, err := framing(h, req.Minor, true)
	if err != nil {
		return err
	}
	req.Length = length
	req.Close = h.Token(message.Connection, "close") || (req.Minor == 0 && !h.Token(message.Connection, "keep-alive"))
	req.Upgrade = h.UpgradeType()
	req.TrailersWanted = h.Token(message.TE, "trailers")
	req.Trailers = h.Joined(message.Trailer)
	h.RemoveHopByHop()
	return nil
}

// splitTarget checks the target and splits one in absolute form, whose authority goes before Host (RFC 9112 section 3.2.2).
func splitTarget(req *message.Request) error {
	t := req.Target
	switch {
	case req.Method == http.MethodConnect:
		return nil // refused by the proxy, whatever it says
	case t == "*":
		if req.Method != http.MethodOptions {
			return errTarget
		}
		return nil
	case t[0] != '/':
		rest, ok := cutScheme(t)
		if !ok {
			return errTarget
		}
		end := strings.IndexAny(rest, "/?")
		authority := rest
		req.Target = "/"
		if end >= 0 {
			authority = rest[:end]
			req.Target = rest[end:]
			if req.Target[0] != '/' {
				req.Target = "/" + req.Target
			}
		}
		if authority == "" || !validHost(authority) || strings.ContainsAny(authority, "@%") {
			return errTarget
		}
		req.Host = authority
	}
	return checkEscapes(req.Target)
}

// checkEscapes refuses a path that cannot be decoded.
func checkEscapes(target string) error {
	path, _, _ := strings.Cut(target, "?")
	for i := strings.IndexByte(path, '%'); i >= 0; {
		if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return errTarget
		}
		next := strings.IndexByte(path[i+1:], '%')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return nil
}

func cutScheme(t string) (string, bool) {
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(t) > len(scheme) && message.EqualFold(t[:len(scheme)], scheme) {
			return t[len(scheme):], true
		}
	}
	return "", false
}

func isHex(c byte) bool { _, ok := hexDigit(c); return ok }

func hexDigit(c byte) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return uint64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}

// validHost checks an authority without user information: a name or an address, and a port if there is one.
func validHost(host string) bool {
	if !allOf(host, hostByte) {
		return false
	}
	rest := host
	if strings.HasPrefix(host, "[") {
		_, after, closed := strings.Cut(host, "]")
		if !closed {
			return false
		}
		rest = after
		if rest != "" && rest[0] != ':' {
			return false
		}
	} else if strings.ContainsAny(host, "[]") {
		return false
	}
	if i := strings.IndexByte(rest, ':'); i >= 0 {
		// A port that is none would be read differently by the next.
		for _, c := range []byte(rest[i+1:]) {
			if c < '0' || c > '9' {
				return false
			}
		}
	}
	return true
}
