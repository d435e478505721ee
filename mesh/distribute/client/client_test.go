package client_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute/client"
)

// script is a control plane that a test plays by hand.
type script struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	requests  chan *discovery.DeltaDiscoveryRequest
	responses chan *discovery.DeltaDiscoveryResponse
	// hangUp ends the current stream.
	hangUp chan struct{}
}

func newScript() *script {
	return &script{
		requests: make(chan *discovery.DeltaDiscoveryRequest, 64), responses: make(chan *discovery.DeltaDiscoveryResponse), hangUp: make(chan struct{}),
	}
}

func (s *script) DeltaAggregatedResources(conn discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	go func() {
		for {
			req, err := conn.Recv()
			if err != nil {
				return
			}
			s.requests <- req
		}
	}()
	for {
		select {
		case <-conn.Context().Done():
			return nil
		case <-s.hangUp:
			return errors.New("bye")
		case resp := <-s.responses:
			if err := conn.Send(resp); err != nil {
				return err
			}
		}
	}
}

// listen serves the script until the test ends.
func (s *script) listen(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
}

// next returns the next request.
func (s *script) next(t *testing.T) *discovery.DeltaDiscoveryRequest {
	t.Helper()
	select {
	case req := <-s.requests:
		return req
	case <-time.After(10 * time.Second):
		t.Fatal("timed out waiting for a request")
		return nil
	}
}

// subscriptions reads the requests that open a stream.
func (s *script) subscriptions(t *testing.T) []*discovery.DeltaDiscoveryRequest {
	t.Helper()
	var list []*discovery.DeltaDiscoveryRequest
	for range config.Types() {
		list = append(list, s.next(t))
	}
	return list
}

// answer sends a response and returns what the client says to it.
func (s *script) answer(t *testing.T, resp *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryRequest {
	t.Helper()
	s.responses <- resp
	return s.next(t)
}

func packed(t *testing.T, version string, res config.Resource) *discovery.Resource {
	t.Helper()
	body, err := proto.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	url := "type.googleapis.com/" + string(res.ProtoReflect().Descriptor().FullName())
	return &discovery.Resource{Name: res.GetName(), Version: version, Resource: &anypb.Any{TypeUrl: url, Value: body}}
}

// applier records names, and refuses when told to.
type applier struct {
	// mu guards the rest.
	mu     sync.Mutex
	log    []string
	refuse error
}

func (a *applier) Apply(_ string, upserts []config.Resource, removed []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return a.refuse
	}
	for _, res := range upserts {
		a.log = append(a.log, "+"+res.GetName())
	}
	for _, name := range removed {
		a.log = append(a.log, "-"+name)
	}
	return nil
}

func run(t *testing.T, opts client.Options) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx, opts) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts client.Options
		want string
	}{
		{name: "no target", opts: client.Options{Applier: &applier{}}, want: "target is empty"},
		{name: "no applier", opts: client.Options{Target: "unix:///x"}, want: "applier is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := client.Run(t.Context(), tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSubscribesToEverythingInOrder(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	s := newScript()
	// The client is there before the control plane.
	run(t, client.Options{Target: "unix://" + socket, NodeID: "p1", Applier: &applier{}, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
	s.listen(t, socket)
	var types []string
	for i, req := range s.subscriptions(t) {
		types = append(types, req.GetTypeUrl())
		if diff := cmp.Diff([]string{"*"}, req.GetResourceNamesSubscribe()); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		if i == 0 && req.GetNode().GetId() != "p1" {
			t.Errorf("node = %q, want p1", req.GetNode().GetId())
		}
	}
	if diff := cmp.Diff(config.Types(), types); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
}

func TestAnswersAreTheAppliersOwn(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	s := newScript()
	s.listen(t, socket)
	a := &applier{}
	run(t, client.Options{Target: "unix://" + socket, Applier: a, MinBackoff: time.Millisecond})
	s.subscriptions(t)

	route := &config.Route{Name: "r"}
	misnamed := packed(t, "v", route)
	misnamed.Name = "other"
	garbled := packed(t, "v", route)
	garbled.Resource.Value = []byte{0xff}
	foreign := packed(t, "v", &config.Backend{Name: "b"})
	tests := []struct {
		name    string
		typeURL string
		res     *discovery.Resource
		refuse  error
		want    string
	}{
		{name: "accepted", typeURL: config.RouteType, res: packed(t, "v1", route), refuse: nil, want: ""},
		{name: "refused", typeURL: config.RouteType, res: packed(t, "v2", route), refuse: errors.New("no such host"), want: "no such host"},
		{name: "another name inside", typeURL: config.RouteType, res: misnamed, refuse: nil, want: `decoding "other": name inside is "r"`},
		{name: "not decodable", typeURL: config.RouteType, res: garbled, refuse: nil, want: `decoding "r":`},
		{name: "another type inside", typeURL: config.RouteType, res: foreign, refuse: nil, want: `not "` + config.RouteType},
		{name: "type that was not asked for", typeURL: "type.googleapis.com/x", res: foreign, refuse: nil, want: "was not asked for"},
	}
	for _, tt := range tests {
		a.mu.Lock()
		a.refuse = tt.refuse
		a.mu.Unlock()
		got := s.answer(t, &discovery.DeltaDiscoveryResponse{TypeUrl: tt.typeURL, Nonce: tt.name, Resources: []*discovery.Resource{tt.res}})
		if got.GetResponseNonce() != tt.name || got.GetTypeUrl() != tt.typeURL {
			t.Errorf("%s: answer is to %q of %q", tt.name, got.GetResponseNonce(), got.GetTypeUrl())
		}
		if text := got.GetErrorDetail().GetMessage(); (text == "") != (tt.want == "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: error = %q, want %q", tt.name, text, tt.want)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if diff := cmp.Diff([]string{"+r"}, a.log); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func TestReconnectNamesWhatWasApplied(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	s := newScript()
	s.listen(t, socket)
	a := &applier{}
	synced := make(chan struct{}, 8)
	run(t, client.Options{Target: "unix://" + socket, Applier: a, MinBackoff: time.Millisecond, OnSynced: func() { synced <- struct{}{} }})
	s.subscriptions(t)
	s.answer(t, &discovery.DeltaDiscoveryResponse{TypeUrl: config.RouteType, Nonce: "1", Resources: []*discovery.Resource{
		packed(t, "v1", &config.Route{Name: "keep"}), packed(t, "v1", &config.Route{Name: "drop"}), packed(t, "v1", &config.Route{Name: "change"}),
	}})
	s.answer(t, &discovery.DeltaDiscoveryResponse{TypeUrl: config.RouteType, Nonce: "2", RemovedResources: []string{"drop"}})
	a.mu.Lock()
	a.refuse = errors.New("no")
	a.mu.Unlock()
	s.answer(t, &discovery.DeltaDiscoveryResponse{TypeUrl: config.RouteType, Nonce: "3", Resources: []*discovery.Resource{packed(t, "v2", &config.Route{Name: "change"})}})
	if len(synced) != 0 {
		t.Error("synced before every type was answered")
	}

	s.hangUp <- struct{}{}
	for _, req := range s.subscriptions(t) {
		want := map[string]string{}
		if req.GetTypeUrl() == config.RouteType {
			want = map[string]string{"keep": "v1", "change": "v1"}
		}
		got := req.GetInitialResourceVersions()
		if got == nil {
			got = map[string]string{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("versions of %s (-want +got):\n%s", req.GetTypeUrl(), diff)
		}
	}
	for _, typeURL := range config.Types() {
		if got := s.answer(t, &discovery.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: "n"}); got.GetErrorDetail() != nil {
			t.Errorf("empty response of %s was refused: %v", typeURL, got.GetErrorDetail())
		}
	}
	select {
	case <-synced:
	case <-time.After(10 * time.Second):
		t.Error("not synced after every type was answered")
	}
}
