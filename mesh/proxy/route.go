package proxy

import (
	"math/bits"
	"math/rand/v2"
	"net/http"
	"path"
	"strings"
	"sync/atomic"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/message"
)

// virtualHost is the compiled form of a config.VirtualHost. It is immutable but for the position of its rules' splits.
type virtualHost struct {
	// route is the name of the resource that it comes from.
	route string
	rules []*rule
	// httpsPort is where requests without TLS are sent; zero serves them.
	httpsPort uint32
}

type rule struct {
	pathPrefix string
	match      []header
	set        []header
	splits     []split
	// total is the sum of the weights, position a Weyl sequence that chooses among the splits.
	total    uint64
	position atomic.Uint64
}

type split struct {
	backend *backend
	set     []header
	// upTo is the sum of the weights to this split, itself included.
	upTo uint64
}

// header is a field to look for or to set.
type header struct {
	name  message.Match
	value string
}

// weyl is 2^64 divided by the golden ratio. Adding it again and again visits the range more evenly than random numbers do: after n
// requests every share is right to within a few requests, where random choice strays by the square root of n. And as the step
// is irrational to any period, no rhythm of the clients' requests can fall in with it.
const weyl = 0x9E3779B97F4A7C15

// compileHost compiles rules, taking backends from get.
func compileHost(route string, v *config.VirtualHost, get func(name string) *backend) *virtualHost {
	host := &virtualHost{route: route, rules: make([]*rule, 0, len(v.GetRules())), httpsPort: v.GetHttpsRedirectPort()}
	for _, r := range v.GetRules() {
		compiled := &rule{
			pathPrefix: strings.TrimSuffix(r.GetMatch().GetPathPrefix(), "/"),
			match:      compileHeaders(r.GetMatch().GetHeaders()),
			set:        compileHeaders(r.GetSetHeaders()),
		}
		for _, s := range r.GetSplits() {
			if s.GetWeight() == 0 {
				continue
			}
			compiled.total += uint64(s.GetWeight())
			compiled.splits = append(compiled.splits, split{
				backend: get(s.GetBackend()), set: compileHeaders(s.GetSetHeaders()), upTo: compiled.total,
			})
		}
		compiled.position.Store(rand.Uint64()) //nolint:gosec // any start will do
		host.rules = append(host.rules, compiled)
	}
	return host
}

func compileHeaders(headers []*config.Header) []header {
	if len(headers) == 0 {
		return nil
	}
	out := make([]header, 0, len(headers))
	for _, h := range headers {
		out = append(out, header{name: message.MatchName(http.CanonicalHeaderKey(h.GetName())), value: h.GetValue()})
	}
	return out
}

// find returns the first rule that matches, or nil.
func (v *virtualHost) find(r *message.Request) *rule {
	for _, candidate := range v.rules {
		if candidate.matches(r) {
			return candidate
		}
	}
	return nil
}

func (r *rule) matches(req *message.Request) bool {
	if r.pathPrefix != "" && !underPrefix(req.Path(), r.pathPrefix) {
		return false
	}
	for _, h := range r.match {
		if got, ok := req.Header.Only(h.name); !ok || got != h.value {
			return false
		}
	}
	return true
}

// underPrefix matches whole segments of the path as the instance will understand it: with dot segments and doubled slashes resolved,
// so that no spelling of a path reaches what another rule is for.
func underPrefix(p, prefix string) bool {
	if strings.Contains(p, "//") || strings.Contains(p, "/.") {
		p = path.Clean(p)
	}
	return strings.HasPrefix(p, prefix) && (len(p) == len(prefix) || p[len(prefix)] == '/')
}

// choose returns the split for the next request, or nil when the rule has none.
func (r *rule) choose() *split {
	switch len(r.splits) {
	case 0:
		return nil
	case 1:
		return &r.splits[0]
	}
	at, _ := bits.Mul64(r.position.Add(weyl), r.total)
	for i := range r.splits {
		if at < r.splits[i].upTo {
			return &r.splits[i]
		}
	}
	return nil
}

// apply sets the headers on a request; Host is not among its fields.
func apply(headers []header, r *message.Request) {
	for _, h := range headers {
		if h.name.ID() == message.Host {
			r.Host = h.value
			continue
		}
		r.Header.SetMatch(h.name, h.value)
	}
}
