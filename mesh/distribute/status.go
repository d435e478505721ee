package distribute

import (
	"cmp"
	"slices"

	"github.com/weft-dev/weft/mesh/config"
)

// ProxyStatus is how far one connected proxy is, for people who ask why a change has no effect.
type ProxyStatus struct {
	// Node is the name that the proxy gave itself.
	Node string
	// Held and Pending count resources over all types: accepted in their current version, and everything else.
	Held, Pending int
	// Rejections holds what the proxy said, by resource.
	Rejections map[Key]string
}

// Proxies lists the connected proxies by name.
func (s *Server) Proxies() []ProxyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]ProxyStatus, 0, len(s.streams))
	for st := range s.streams {
		status := ProxyStatus{Node: st.node, Rejections: make(map[Key]string)}
		for _, typeURL := range config.Types() {
			for name, e := range s.resources[typeURL] {
				sub := st.subs[typeURL]
				switch {
				case sub != nil && !sub.wants(name):
				case st.lacks(e) == "":
					status.Held++
				default:
					status.Pending++
					if sub != nil && sub.held[name].rejection != "" {
						status.Rejections[Key{TypeURL: typeURL, Name: name}] = sub.held[name].rejection
					}
				}
			}
		}
		list = append(list, status)
	}
	slices.SortFunc(list, func(a, b ProxyStatus) int { return cmp.Compare(a.Node, b.Node) })
	return list
}
