package message

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(lines ...string) *Header {
	h := new(Header)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Append(name, value)
	}
	return h
}

func lines(h *Header) []string {
	var out []string
	for _, f := range h.Fields() {
		out = append(out, f.Name+": "+f.Value)
	}
	return out
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	for n := Connection; n < names; n++ {
		for _, spelled := range []string{n.String(), strings.ToLower(n.String()), strings.ToUpper(n.String())} {
			if got := Identify(spelled); got != n {
				t.Errorf("%q is %d, want %d", spelled, got, n)
			}
		}
	}
	for _, other := range []string{"", "X-Other", "Hos", "Hostx", strings.Repeat("x", 100)} {
		if got := Identify(other); got != Other {
			t.Errorf("%q is %s", other, got)
		}
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	before := []string{"host: a", "X-A: 1", "TE: b", "x-a: 2", "Forwarded: c", "FORWARDED: d"}
	for _, tt := range []struct {
		name   string
		change func(h *Header)
		want   []string
	}{
		{"order and spelling stay", func(*Header) {}, before},
		{"set what is there", func(h *Header) { h.Set(Forwarded, "e") }, []string{"host: a", "X-A: 1", "TE: b", "x-a: 2", "Forwarded: e"}},
		{"set what is not", func(h *Header) { h.Set(Upgrade, "e") }, append(slices.Clip(before), "Upgrade: e")},
		{"set a prepared name", func(h *Header) { h.SetMatch(MatchName("X-a"), "3") }, []string{"host: a", "X-A: 3", "TE: b", "Forwarded: c", "FORWARDED: d"}},
		{"set a new one", func(h *Header) { h.SetMatch(MatchName("X-B"), "3") }, append(slices.Clip(before), "X-B: 3")},
		{"delete", func(h *Header) { h.Del(Forwarded) }, before[:4]},
		{"delete a prepared name", func(h *Header) { h.DelMatch(MatchName("x-A")) }, []string{"host: a", "TE: b", "Forwarded: c", "FORWARDED: d"}},
		{"delete a set", func(h *Header) { h.DelAll(SetOf(Host, TE, Upgrade)) }, []string{"X-A: 1", "x-a: 2", "Forwarded: c", "FORWARDED: d"}},
		{"reset", func(h *Header) { h.Reset() }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := parse(before...)
			tt.change(h)
			if diff := cmp.Diff(tt.want, lines(h)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for n := Connection; n < names; n++ {
				if h.Has(n) != (h.Count(n) > 0) {
					t.Errorf("Has(%s) is %v with %d fields", n, h.Has(n), h.Count(n))
				}
			}
		})
	}
}

func TestLookups(t *testing.T) {
	t.Parallel()
	h := parse("Forwarded: a", "Forwarded: b", "X-One: 1", "X-Two: 1", "x-two: 2", "Connection: Keep-Alive, Upgrade", "TE: trailers;q=1")
	if got := h.Joined(Forwarded); got != "a, b" || h.Get(Forwarded) != "a" || h.Get(Host) != "" {
		t.Errorf("values: %q, %q, %q", got, h.Get(Forwarded), h.Get(Host))
	}
	if v, ok := h.Only(MatchName("X-ONE")); v != "1" || !ok {
		t.Errorf("the only one: %q, %v", v, ok)
	}
	for _, name := range []string{"X-Two", "X-Three", "Forwarded"} {
		if v, ok := h.Only(MatchName(name)); ok {
			t.Errorf("%s has not one value but %q is it", name, v)
		}
	}
	if !h.Token(Connection, "upgrade") || h.Token(Connection, "up") || h.Token(TE, "trailers") || h.Token(Upgrade, "upgrade") {
		t.Error("tokens")
	}
}

func TestRemoveHopByHop(t *testing.T) {
	t.Parallel()
	h := parse("Connection: keep-alive, x-one, TE", "X-One: 1", "connection:  X-Two ,, ", "X-Two: 2", "X-Three: 3", "Keep-Alive: x", "Proxy-Connection: x",
		"Proxy-Authenticate: x", "Proxy-Authorization: x", "TE: x", "Trailer: x", "Transfer-Encoding: x", "Upgrade: x")
	h.RemoveHopByHop()
	if diff := cmp.Diff([]string{"X-Three: 3"}, lines(h)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpgradeType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		header *Header
		want   string
	}{
		{"none", parse(), ""},
		{"websocket", parse("Connection: keep-alive, upgrade", "Upgrade: websocket"), "websocket"},
		{"not a connection option", parse("Connection: keep-alive", "Upgrade: websocket"), ""},
		{"h2c", parse("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.header.UpgradeType(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{"/": "/", "/a%2Fb?c=%20": "/a/b", "*": "*", "/a?b?c": "/a"} {
		if got := (&Request{Target: target}).Path(); got != want {
			t.Errorf("path of %q: %q, want %q", target, got, want)
		}
	}
}
