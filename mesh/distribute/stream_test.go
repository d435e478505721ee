package distribute_test

import (
	"context"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// dial opens a bare stream, as a proxy does that subscribes on demand.
func dial(t *testing.T, s *distribute.Server) discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	target, _ := serve(t, s, socketPath(t))
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	must(t, err)
	return stream
}

// receive returns the names of the next response, "-" before removed ones, after acknowledging it.
func receive(t *testing.T, stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) []string {
	t.Helper()
	resp, err := stream.Recv()
	must(t, err)
	names := []string{}
	for _, r := range resp.GetResources() {
		names = append(names, r.GetName())
	}
	for _, name := range resp.GetRemovedResources() {
		names = append(names, "-"+name)
	}
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}))
	return names
}

func expect(t *testing.T, stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, receive(t, stream)); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
}

func TestSubscriptionOnDemand(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	must(t, s.Apply([]config.Resource{route("a", "a"), route("b", "b")}, nil))
	stream := dial(t, s)
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: config.RouteType, ResourceNamesSubscribe: []string{"a"}}))
	expect(t, stream, "a")

	// A name that does not exist is answered, so that the proxy need not wait for it.
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: config.RouteType, ResourceNamesSubscribe: []string{"later"}}))
	expect(t, stream, "-later")
	awaitAcked(t, s, config.RouteType, "a", "")
	if ok, why := s.Acked(config.RouteType, "b", ""); !ok {
		t.Errorf("a resource that no proxy wants is not acknowledged: %s", why)
	}
	must(t, s.Set(route("b", "changed")))
	must(t, s.Set(route("later", "x")))
	expect(t, stream, "later")

	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: config.RouteType, ResourceNamesUnsubscribe: []string{"a"}}))
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: config.RouteType, ResourceNamesSubscribe: []string{"b"}}))
	expect(t, stream, "b")
	must(t, s.Apply([]config.Resource{route("a", "changed"), route("later", "y")}, nil))
	expect(t, stream, "later")

	// Who asks again gets it again.
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: config.RouteType, ResourceNamesSubscribe: []string{"a"}}))
	expect(t, stream, "a")
}

func TestFirstRequestWithoutNamesAsksForAll(t *testing.T) {
	t.Parallel()
	s := distribute.New(distribute.Options{})
	must(t, s.Apply([]config.Resource{route("a", "a"), route("b", "b")}, nil))
	stream := dial(t, s)
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: config.RouteType}))
	expect(t, stream, "a", "b")
	s.Delete(config.RouteType, "a")
	expect(t, stream, "-a")
}

func TestTypeIsRequired(t *testing.T) {
	t.Parallel()
	stream := dial(t, distribute.New(distribute.Options{}))
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{}))
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("error = %v, want InvalidArgument", err)
	}
}

func TestUnknownTypeIsAnsweredEmpty(t *testing.T) {
	t.Parallel()
	stream := dial(t, distribute.New(distribute.Options{}))
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/of.the.Future", ResourceNamesSubscribe: []string{"*"}}))
	if got := receive(t, stream); len(got) != 0 {
		t.Errorf("response = %q, want an empty one", got)
	}
}
