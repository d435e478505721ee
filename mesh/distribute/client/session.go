package client

import (
	"context"
	"fmt"
	"maps"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/weft-dev/weft/mesh/config"
)

// maxMessage bounds one response. The server cuts responses far below; the slack is for one very large resource.
const maxMessage = 64 << 20

// session is what outlives a connection: the versions of what has been applied.
type session struct {
	opts     Options
	versions map[string]map[string]string
}

func newSession(opts Options) *session {
	s := &session{opts: opts, versions: make(map[string]map[string]string)}
	for _, typeURL := range config.Types() {
		s.versions[typeURL] = make(map[string]string)
	}
	return s
}

// run keeps one stream until it breaks. synced says whether it came to the point where the proxy knew everything.
//
// The connection is made anew each time: gRPC's own reconnecting has a back-off of its own that starts at a second, and an old
// connection would answer "unavailable" from it instead of dialling.
func (s *session) run(ctx context.Context) (synced bool, err error) {
	options := append([]grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))}, s.opts.DialOptions...)
	conn, err := grpc.NewClient(s.opts.Target, options...)
	if err != nil {
		return false, fmt.Errorf("preparing connection to %s: %w", s.opts.Target, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, fmt.Errorf("connecting to %s: %w", s.opts.Target, err)
	}
	if err := s.subscribe(stream); err != nil {
		return false, fmt.Errorf("subscribing: %w", err)
	}
	missing := make(map[string]struct{})
	for _, typeURL := range config.Types() {
		missing[typeURL] = struct{}{}
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return synced, fmt.Errorf("receiving from %s: %w", s.opts.Target, err)
		}
		if err := stream.Send(s.handle(resp)); err != nil {
			return synced, fmt.Errorf("acknowledging to %s: %w", s.opts.Target, err)
		}
		// Types are sent in order, so that the first response of the last one ends the first picture.
		delete(missing, resp.GetTypeUrl())
		if !synced && len(missing) == 0 {
			synced = true
			if s.opts.OnSynced != nil {
				s.opts.OnSynced()
			}
		}
	}
}

// subscribe asks for everything, in the order in which the types depend on each other.
func (s *session) subscribe(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
	for i, typeURL := range config.Types() {
		req := &discovery.DeltaDiscoveryRequest{
			TypeUrl:                 typeURL,
			ResourceNamesSubscribe:  []string{"*"},
			InitialResourceVersions: maps.Clone(s.versions[typeURL]),
		}
		if i == 0 {
			req.Node = &corev3.Node{Id: s.opts.NodeID, UserAgentName: "weft-proxy"}
		}
		if err := stream.Send(req); err != nil {
			// Send reports io.EOF for a stream that the server ended; Recv has the reason.
			if _, reason := stream.Recv(); reason != nil {
				return reason
			}
			return err
		}
	}
	return nil
}

// handle applies a response and returns the answer to it.
func (s *session) handle(resp *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryRequest {
	answer := &discovery.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	if err := s.apply(resp); err != nil {
		s.opts.Logger.Error("configuration rejected", "type", resp.GetTypeUrl(), "resources", len(resp.GetResources()), "error", err)
		answer.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
	}
	return answer
}

func (s *session) apply(resp *discovery.DeltaDiscoveryResponse) error {
	versions, ok := s.versions[resp.GetTypeUrl()]
	if !ok {
		return fmt.Errorf("type %q was not asked for", resp.GetTypeUrl())
	}
	upserts := make([]config.Resource, 0, len(resp.GetResources()))
	for _, r := range resp.GetResources() {
		res, err := decode(resp.GetTypeUrl(), r)
		if err != nil {
			return fmt.Errorf("decoding %q: %w", r.GetName(), err)
		}
		upserts = append(upserts, res)
	}
	if len(upserts) > 0 || len(resp.GetRemovedResources()) > 0 {
		if err := s.opts.Applier.Apply(resp.GetTypeUrl(), upserts, resp.GetRemovedResources()); err != nil {
			return err
		}
	}
	for _, r := range resp.GetResources() {
		versions[r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(versions, name)
	}
	return nil
}

func decode(typeURL string, r *discovery.Resource) (config.Resource, error) {
	if got := r.GetResource().GetTypeUrl(); got != typeURL {
		return nil, fmt.Errorf("type is %q, not %q", got, typeURL)
	}
	res, err := newResource(typeURL)
	if err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(r.GetResource().GetValue(), res); err != nil {
		return nil, err
	}
	if res.GetName() != r.GetName() {
		return nil, fmt.Errorf("name inside is %q", res.GetName())
	}
	return res, nil
}

func newResource(typeURL string) (config.Resource, error) {
	switch typeURL {
	case config.EndpointsType:
		return new(config.Endpoints), nil
	case config.BackendType:
		return new(config.Backend), nil
	case config.CertificateType:
		return new(config.Certificate), nil
	case config.RouteType:
		return new(config.Route), nil
	case config.ServiceType:
		return new(config.Service), nil
	case config.AccessLogType:
		return new(config.AccessLog), nil
	case config.ListenerType:
		return new(config.Listener), nil
	}
	return nil, fmt.Errorf("type %q is unknown", typeURL)
}
