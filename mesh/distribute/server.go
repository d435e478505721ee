package distribute

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weft-dev/weft/mesh/config"
)

// Options of a Server. The zero value works.
type Options struct {
	// Logger receives connections and rejections. Nothing is logged when nil.
	Logger *slog.Logger
	// Registerer takes the metrics. They are not registered when nil.
	Registerer prometheus.Registerer
}

// Key names one resource.
type Key struct {
	TypeURL string
	Name    string
}

// Server holds the resources and one stream per connected proxy. All methods may be called concurrently; none waits for a proxy.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	log     *slog.Logger
	metrics *metrics

	// mu guards everything below, and the fields of every stream. It is held for map work only, never while sending.
	mu        sync.Mutex
	resources map[string]map[string]*entry
	streams   map[*stream]struct{}
	watches   map[*Watch]struct{}
	holds     map[*hold]struct{}
}

// hold is one reason not to send yet.
type hold struct{ who string }

// New returns a Server without resources.
func New(opts Options) *Server {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		log:       log,
		metrics:   newMetrics(opts.Registerer),
		resources: make(map[string]map[string]*entry),
		streams:   make(map[*stream]struct{}),
		watches:   make(map[*Watch]struct{}),
		holds:     make(map[*hold]struct{}),
	}
	return s
}

// Register adds the aggregated discovery service to a gRPC server. The streams live as long as their proxies, so a server that
// stops must use Stop, because GracefulStop would wait for them.
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// Hold keeps the server from sending anything until release is called, once per hold. A compiler holds from its creation to the
// end of its first pass: to a proxy that kept its configuration over a restart of the control plane, a half-filled server looks
// like one from which everything else was deleted. Holds must be taken before the gRPC server accepts connections.
func (s *Server) Hold(who string) (release func()) {
	h := &hold{who: who}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[h] = struct{}{}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.holds, h)
		s.log.Debug("first pass complete", "source", who, "waiting", len(s.holds))
		if len(s.holds) > 0 {
			return
		}
		for st := range s.streams {
			st.signal()
		}
	})
}

// Set adds or replaces one resource.
func (s *Server) Set(res config.Resource) error {
	return s.Apply([]config.Resource{res}, nil)
}

// Delete removes one resource; an unknown one is no error.
func (s *Server) Delete(typeURL, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remove(Key{TypeURL: typeURL, Name: name}) {
		s.wake()
	}
}

// Apply makes a batch of changes that reaches each proxy as a whole, in the order of config.Types for what is set and in the reverse
// order for what is removed. Resources whose content is unchanged cost nothing. The server keeps no reference to the messages.
// An error names the resources that cannot be encoded; the others are applied.
func (s *Server) Apply(upserts []config.Resource, deletes []Key) error {
	entries := make([]*entry, 0, len(upserts))
	var errs []error
	for _, res := range upserts {
		e, err := encode(res)
		if err != nil {
			errs = append(errs, fmt.Errorf("encoding %s: %w", res.GetName(), err))
			continue
		}
		entries = append(entries, e)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, e := range entries {
		changed = s.store(e) || changed
	}
	for _, key := range deletes {
		changed = s.remove(key) || changed
	}
	if changed {
		s.wake()
	}
	return errors.Join(errs...)
}

// store puts an entry in place and marks it for every stream that wants it. The caller holds mu.
func (s *Server) store(e *entry) bool {
	byName := s.resources[e.typeURL]
	if byName == nil {
		byName = make(map[string]*entry)
		s.resources[e.typeURL] = byName
	}
	if old := byName[e.name()]; old != nil && old.version() == e.version() {
		return false
	}
	byName[e.name()] = e
	s.metrics.resources.WithLabelValues(e.typeURL).Set(float64(len(byName)))
	s.mark(e.typeURL, e.name())
	return true
}

// remove takes an entry out and marks it for every stream that wants it. The caller holds mu.
func (s *Server) remove(key Key) bool {
	byName := s.resources[key.TypeURL]
	if _, ok := byName[key.Name]; !ok {
		return false
	}
	delete(byName, key.Name)
	s.metrics.resources.WithLabelValues(key.TypeURL).Set(float64(len(byName)))
	s.mark(key.TypeURL, key.Name)
	return true
}

// mark records for every stream that wants a resource that it has changed. The caller holds mu.
func (s *Server) mark(typeURL, name string) {
	for st := range s.streams {
		if sub := st.subs[typeURL]; sub != nil && sub.wants(name) {
			sub.pending[name] = struct{}{}
		}
	}
}

// wake lets the streams look for what is pending. The caller holds mu.
func (s *Server) wake() {
	for st := range s.streams {
		st.signal()
	}
}
