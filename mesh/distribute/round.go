package distribute

import (
	"cmp"
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/weft-dev/weft/mesh/config"
)

// Bounds of one response. A proxy applies a response as a whole, so its size bounds how long the first change of a large round
// waits for the last one, and both stay far below the 4 MB that gRPC clients accept by default.
const (
	maxResources = 512
	maxBytes     = 512 << 10
)

// part is one response of a round.
type part struct {
	typeURL string
	entries []*entry
	removed []string
}

func (p *part) response(nonce uint64) *discovery.DeltaDiscoveryResponse {
	resp := &discovery.DeltaDiscoveryResponse{
		TypeUrl:          p.typeURL,
		RemovedResources: p.removed,
		Nonce:            strconv.FormatUint(nonce, 10),
	}
	if len(p.entries) > 0 {
		resp.Resources = make([]*discovery.Resource, len(p.entries))
		for i, e := range p.entries {
			resp.Resources[i] = e.resource
		}
	}
	return resp
}

// round takes all that is pending for a stream at this moment. It fixes the content, not only the names: a change that arrives while
// the round is being sent belongs to the next one as a whole, so that a route can never get ahead of what it names. The caller
// holds mu.
func (s *Server) round(st *stream) []part {
	var sets, removals []part
	for _, typeURL := range st.order() {
		sub := st.subs[typeURL]
		if len(sub.pending) == 0 && !sub.answer {
			continue
		}
		changed, removed := s.take(typeURL, sub)
		parts := split(typeURL, changed, sub.alone)
		clear(sub.alone)
		if len(removed) > 0 {
			removals = append(removals, part{typeURL: typeURL, removed: removed})
		}
		if sub.answer && len(parts) == 0 {
			parts = []part{{typeURL: typeURL}}
		}
		sub.answer = false
		sets = append(sets, parts...)
	}
	slices.Reverse(removals)
	return append(sets, removals...)
}

// take empties the pending set of a subscription into what the proxy lacks and what it must drop.
func (s *Server) take(typeURL string, sub *subscription) (changed []*entry, removed []string) {
	resources := s.resources[typeURL]
	for name := range sub.pending {
		e, exists := resources[name]
		held, known := sub.held[name]
		switch {
		case exists && held.sent != e.version():
			held.sent, held.rejection = e.version(), ""
			sub.held[name] = held
			changed = append(changed, e)
		case !exists && known:
			delete(sub.held, name)
			removed = append(removed, name)
		}
	}
	clear(sub.pending)
	slices.SortFunc(changed, func(a, b *entry) int { return cmp.Compare(a.name(), b.name()) })
	slices.Sort(removed)
	return changed, removed
}

// split cuts entries into responses of bounded size, and gives those in alone one each.
func split(typeURL string, entries []*entry, alone map[string]struct{}) []part {
	var parts []part
	size := 0
	open := false
	for _, e := range entries {
		if _, ok := alone[e.name()]; ok {
			parts = append(parts, part{typeURL: typeURL, entries: []*entry{e}})
			open = false
			continue
		}
		last := len(parts) - 1
		if !open || len(parts[last].entries) >= maxResources || size+e.size > maxBytes {
			parts = append(parts, part{typeURL: typeURL})
			last, size, open = len(parts)-1, 0, true
		}
		parts[last].entries = append(parts[last].entries, e)
		size += e.size
	}
	return parts
}

// order lists the types that a stream subscribes to: those of config.Types first, then any other by name.
func (st *stream) order() []string {
	known := config.Types()
	types := make([]string, 0, len(st.subs))
	for _, typeURL := range known {
		if st.subs[typeURL] != nil {
			types = append(types, typeURL)
		}
	}
	if len(types) == len(st.subs) {
		return types
	}
	rest := len(types)
	for typeURL := range st.subs {
		if !slices.Contains(known, typeURL) {
			types = append(types, typeURL)
		}
	}
	slices.Sort(types[rest:])
	return types
}
