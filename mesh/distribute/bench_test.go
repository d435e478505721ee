package distribute_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
	"github.com/weft-dev/weft/mesh/distribute/client"
)

// counter is an Applier that tells of each change after it has been told of all that there was.
type counter struct {
	applied chan struct{}
	ready   bool
}

func (c *counter) Apply(string, []config.Resource, []string) error {
	if c.ready {
		c.applied <- struct{}{}
	}
	return nil
}

// benchClient connects an Applier and returns when it has everything.
func benchClient(b *testing.B, s *distribute.Server, c *counter) (stop func()) {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	ctx, cancel := context.WithCancel(b.Context())
	synced, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- client.Run(ctx, client.Options{Target: "unix://" + socket, Applier: c, OnSynced: func() { c.ready = true; close(synced) }})
	}()
	<-synced
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		g.Stop()
	}
}

// BenchmarkChange is the time from a change of one of 5,000 routes to its effect in a proxy that is connected by a socket. What it allocates
// must not depend on the number of routes.
func BenchmarkChange(b *testing.B) {
	s := distribute.New(distribute.Options{})
	var all []config.Resource
	for i := range 5000 {
		all = append(all, route(fmt.Sprintf("knative/default/r%04d", i), fmt.Sprintf("r%04d.default.localhost", i)))
	}
	if err := s.Apply(all, nil); err != nil {
		b.Fatal(err)
	}
	p := &counter{applied: make(chan struct{}, 1)}
	defer benchClient(b, s, p)()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := s.Set(route("knative/default/r0001", fmt.Sprintf("h%d", i))); err != nil {
			b.Fatal(err)
		}
		<-p.applied
	}
}
