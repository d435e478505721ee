package distribute

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// NotConnected is the reason that Acked gives while no proxy is connected.
const NotConnected = "no proxy is connected"

// Acked reports whether every connected proxy has accepted exactly this version of a resource, and if not, why, in words for a
// condition's message. The empty version stands for the current one. Proxies that subscribe to other names only do not count.
func (s *Server) Acked(typeURL, name, version string) (ok bool, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.resources[typeURL][name]
	switch {
	case e == nil:
		return false, fmt.Sprintf("%s has not been compiled yet", name)
	case version != "" && version != e.version():
		return false, fmt.Sprintf("a newer version of %s is on its way", name)
	case len(s.streams) == 0:
		return false, NotConnected
	}
	for _, st := range slices.SortedFunc(maps.Keys(s.streams), func(a, b *stream) int { return cmp.Compare(a.node, b.node) }) {
		if why := st.lacks(e); why != "" {
			return false, why
		}
	}
	return true, ""
}

// lacks says why a proxy does not have an entry, and is empty when it does. The caller holds mu.
func (st *stream) lacks(e *entry) string {
	sub := st.subs[e.typeURL]
	if sub == nil {
		return fmt.Sprintf("proxy %s is starting", st.node)
	}
	if !sub.wants(e.name()) {
		return ""
	}
	switch held := sub.held[e.name()]; {
	case held.acked == e.version():
		return ""
	case held.sent == e.version() && held.rejection != "":
		return fmt.Sprintf("proxy %s rejected %s: %s", st.node, e.name(), held.rejection)
	default:
		return fmt.Sprintf("proxy %s has not acknowledged %s yet", st.node, e.name())
	}
}

// Watch collects the names of resources of one type for which the answer of Acked may have changed.
type Watch struct {
	server  *Server
	typeURL string
	ready   chan struct{}

	// names is guarded by the Server's mu. It is bounded by the number of resources.
	names map[string]struct{}
}

// Watch starts to collect. Close must be called in the end.
func (s *Server) Watch(typeURL string) *Watch {
	w := &Watch{server: s, typeURL: typeURL, ready: make(chan struct{}, 1), names: make(map[string]struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches[w] = struct{}{}
	return w
}

// Next waits for names and returns all that have gathered, sorted. Its only error is that of ctx.
func (w *Watch) Next(ctx context.Context) ([]string, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.ready:
		}
		if names := w.drain(); len(names) > 0 {
			return names, nil
		}
	}
}

func (w *Watch) drain() []string {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	names := slices.Sorted(maps.Keys(w.names))
	clear(w.names)
	return names
}

// Close stops collecting.
func (w *Watch) Close() {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	delete(w.server.watches, w)
}

// add never blocks. The caller holds mu.
func (w *Watch) add(name string) {
	w.names[name] = struct{}{}
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// notify tells the watches of a type that these entries were accepted or rejected. The caller holds mu.
func (s *Server) notify(typeURL string, entries []*entry) {
	for w := range s.watches {
		if w.typeURL != typeURL {
			continue
		}
		for _, e := range entries {
			w.add(e.name())
		}
	}
}

// notifyRestored tells of what a proxy brought along when it connected. The caller holds mu.
func (s *Server) notifyRestored(typeURL string, sub *subscription) {
	for w := range s.watches {
		if w.typeURL != typeURL {
			continue
		}
		for name, held := range sub.held {
			if e := s.resources[typeURL][name]; e != nil && held.acked == e.version() {
				w.add(name)
			}
		}
	}
}

// notifyClosed tells of what a proxy that has gone had not accepted: the others may all have. The caller holds mu.
func (s *Server) notifyClosed(st *stream) {
	for w := range s.watches {
		for name, e := range s.resources[w.typeURL] {
			if st.lacks(e) != "" {
				w.add(name)
			}
		}
	}
}
