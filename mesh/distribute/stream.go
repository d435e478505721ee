package distribute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxUnanswered bounds the responses on their way to one proxy. A proxy that stops answering keeps this much and, for the rest, one
// pending name per resource; changes to the same name coalesce until it answers.
const maxUnanswered = 32

// errEnded stops the sending half when the proxy closes its half of the stream.
var errEnded = errors.New("stream ended by the proxy")

// stream is one connected proxy.
type stream struct {
	// work holds a token while there may be something to send.
	work chan struct{}
	// room holds a token while a response may have been answered.
	room chan struct{}

	// The Server's mu guards the fields below.
	node       string
	subs       map[string]*subscription
	unanswered map[uint64]part
	nonce      uint64
	closed     bool
}

func newStream() *stream {
	return &stream{
		work:       make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		subs:       make(map[string]*subscription),
		unanswered: make(map[uint64]part),
	}
}

// signal never blocks: one token stands for any number of changes.
func (st *stream) signal() {
	select {
	case st.work <- struct{}{}:
	default:
	}
}

// DeltaAggregatedResources serves one proxy until it disconnects. Receiving and sending run side by side, so a proxy that reads slowly
// still gets its acknowledgements noted.
func (s *Server) DeltaAggregatedResources(conn discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := newStream()
	defer s.close(st)
	ctx, cancel := context.WithCancelCause(conn.Context())
	// This goroutine outlives the call by a moment: gRPC ends Recv only when the handler has returned. What it receives after
	// close is ignored.
	go func() { cancel(s.receive(st, conn)) }()

	err := s.send(ctx, st, conn)
	if errors.Is(err, errEnded) || conn.Context().Err() != nil {
		return nil
	}
	return err
}

func (s *Server) receive(st *stream, conn discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for {
		req, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return fmt.Errorf("receiving from proxy: %w", err)
		}
		if req.GetTypeUrl() == "" {
			return status.Error(codes.InvalidArgument, "type URL is required for ADS")
		}
		s.request(st, req)
	}
}

// request takes one message of a proxy, which can be an acknowledgement, a change of subscription or both.
func (s *Server) request(st *stream, req *discovery.DeltaDiscoveryRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.closed {
		return
	}
	if len(st.subs) == 0 {
		s.open(st, req.GetNode().GetId())
	}

	typeURL := req.GetTypeUrl()
	sub := st.subs[typeURL]
	subscribe := req.GetResourceNamesSubscribe()
	if sub == nil {
		sub = newSubscription()
		st.subs[typeURL] = sub
		sub.restore(req.GetInitialResourceVersions())
		if len(subscribe) == 0 {
			// The first request of a type without names is the transport's older way to ask for everything.
			subscribe = []string{wildcard}
		}
		defer s.notifyRestored(typeURL, sub)
	}
	sub.subscribe(subscribe, s.resources[typeURL])
	sub.unsubscribe(req.GetResourceNamesUnsubscribe())
	if nonce, err := strconv.ParseUint(req.GetResponseNonce(), 10, 64); err == nil {
		s.answered(st, nonce, req)
	}
	st.signal()
}

func (s *Server) open(st *stream, node string) {
	if node == "" {
		node = "unnamed"
	}
	st.node = node
	s.streams[st] = struct{}{}
	s.metrics.proxies.Set(float64(len(s.streams)))
	s.log.Info("proxy connected", "proxy", node)
}

func (s *Server) close(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.closed = true
	if _, ok := s.streams[st]; !ok {
		return
	}
	delete(s.streams, st)
	s.metrics.proxies.Set(float64(len(s.streams)))
	s.log.Info("proxy disconnected", "proxy", st.node)
	s.notifyClosed(st)
}

// send writes rounds until ctx ends.
func (s *Server) send(ctx context.Context, st *stream, conn discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-st.work:
		}
		for _, p := range s.next(st) {
			resp, err := s.reserve(ctx, st, &p)
			if err != nil {
				return err
			}
			if err := conn.Send(resp); err != nil {
				return fmt.Errorf("sending to proxy: %w", err)
			}
			s.metrics.responses.WithLabelValues(p.typeURL).Inc()
		}
	}
}

// next returns the next round, or nothing while a compiler has not finished its first pass.
func (s *Server) next(st *stream) []part {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.holds) > 0 {
		return nil
	}
	return s.round(st)
}

// reserve numbers a response and remembers it, after waiting for the proxy to answer earlier ones if too many are open.
func (s *Server) reserve(ctx context.Context, st *stream, p *part) (*discovery.DeltaDiscoveryResponse, error) {
	for {
		s.mu.Lock()
		if len(st.unanswered) < maxUnanswered {
			st.nonce++
			st.unanswered[st.nonce] = *p
			resp := p.response(st.nonce)
			s.mu.Unlock()
			return resp, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-st.room:
		}
	}
}

// answered notes what a proxy says to a response. The caller holds mu.
func (s *Server) answered(st *stream, nonce uint64, req *discovery.DeltaDiscoveryRequest) {
	p, ok := st.unanswered[nonce]
	if !ok {
		return
	}
	delete(st.unanswered, nonce)
	select {
	case st.room <- struct{}{}:
	default:
	}
	sub := st.subs[p.typeURL]
	detail := req.GetErrorDetail()
	if detail == nil {
		for _, e := range p.entries {
			if held, ok := sub.held[e.name()]; ok {
				held.acked = e.version()
				sub.held[e.name()] = held
			}
		}
		s.notify(p.typeURL, p.entries)
		return
	}
	s.rejected(st, sub, p, detail.GetMessage())
}

// rejected handles a response that a proxy refused, which it does as a whole. The caller holds mu.
func (s *Server) rejected(st *stream, sub *subscription, p part, reason string) {
	s.metrics.rejections.WithLabelValues(p.typeURL).Inc()
	s.log.Error("proxy rejected configuration", slog.String("proxy", st.node), slog.String("type", p.typeURL),
		slog.Int("resources", len(p.entries)), slog.String("error", reason))
	for _, e := range p.entries {
		held, ok := sub.held[e.name()]
		if !ok || held.sent != e.version() {
			continue
		}
		if len(p.entries) > 1 {
			held.sent = held.acked
			sub.alone[e.name()] = struct{}{}
			sub.pending[e.name()] = struct{}{}
		} else {
			held.rejection = reason
		}
		sub.held[e.name()] = held
	}
	s.notify(p.typeURL, p.entries)
}
