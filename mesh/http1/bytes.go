package http1

import "unsafe"

// Classes of bytes (RFC 9110 section 5).
const (
	tokenByte  = 1 << iota // a token: method, field name
	valueByte              // a field value: visible, space, tab, and the bytes from 0x80
	targetByte             // a request target: anything visible
	hostByte               // an authority
)

var class = func() (table [256]uint8) {
	for c := range table {
		b := byte(c)
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		if letter || contains("!#$%&'*+-.^_`|~", b) {
			table[c] |= tokenByte
		}
		if b == '\t' || b >= ' ' && b != 0x7f {
			table[c] |= valueByte
		}
		if b > ' ' && b != 0x7f {
			table[c] |= targetByte
		}
		if letter || contains("!$%&'()*+,-.:;=[]_~", b) {
			table[c] |= hostByte
		}
	}
	return table
}()

func contains(set string, b byte) bool {
	for i := range len(set) {
		if set[i] == b {
			return true
		}
	}
	return false
}

// all reports whether every byte is of a class.
func all(b []byte, want uint8) bool {
	for _, c := range b {
		if class[c]&want == 0 {
			return false
		}
	}
	return true
}

// allOf is all for a string.
func allOf(s string, want uint8) bool {
	for i := range len(s) {
		if class[s[i]]&want == 0 {
			return false
		}
	}
	return true
}

// text is b as a string without a copy. It holds as long as b is not written to.
func text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b)) //nolint:gosec // the head is copied into a buffer that stays until the exchange ends
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
