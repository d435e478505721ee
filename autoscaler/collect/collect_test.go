package collect

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weft-dev/weft/mesh/telemetry"
)

// sink hands what it gets to the test.
type sink struct {
	reports chan *telemetry.LoadReport
	gone    chan string
}

func (s *sink) Report(report *telemetry.LoadReport, _ time.Time) { s.reports <- report }
func (s *sink) Gone(proxy string)                                { s.gone <- proxy }

// serve runs a Server on a unix socket, as the control plane does.
func serve(t *testing.T) (*Server, *sink, telemetry.LoadServiceClient, context.CancelFunc) {
	t.Helper()
	got := &sink{reports: make(chan *telemetry.LoadReport, 10), gone: make(chan string, 10)}
	s := New(got, slog.New(slog.DiscardHandler))
	path := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	telemetry.RegisterLoadServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()
	connection, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := connection.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		server.GracefulStop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, got, telemetry.NewLoadServiceClient(connection), cancel
}

func TestReport(t *testing.T) {
	t.Parallel()
	s, got, client, _ := serve(t)
	if d := s.Observed(time.Now()); d != 0 {
		t.Errorf("observed for %v before any proxy", d)
	}
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	stream, err := client.Report(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&telemetry.LoadReport{Proxy: "p", Revisions: []*telemetry.RevisionLoad{{Namespace: "n", Revision: "r", Wake: true}}}); err != nil {
		t.Fatal(err)
	}
	if report := <-got.reports; report.GetProxy() != "p" || !report.GetRevisions()[0].GetWake() {
		t.Errorf("got %v", report)
	}
	if d := s.Observed(time.Now()); d <= 0 {
		t.Errorf("observed for %v with a proxy", d)
	}
	hangUp()
	if proxy := <-got.gone; proxy != "p" {
		t.Errorf("gone is %q", proxy)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	_, got, client, stop := serve(t)
	stream, err := client.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&telemetry.LoadReport{Proxy: "p"}); err != nil {
		t.Fatal(err)
	}
	<-got.reports
	stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if proxy := <-got.gone; proxy != "p" {
		t.Errorf("gone is %q", proxy)
	}
}

// TestObserved follows proxies that come and go.
func TestObserved(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	s := New(nil, nil)
	check := func(second int, want time.Duration) {
		t.Helper()
		if got := s.Observed(at(second)); got != want {
			t.Errorf("second %d: observed for %v, want %v", second, got, want)
		}
	}
	check(0, 0)
	s.connected(at(1))
	check(11, 10*time.Second)
	s.connected(at(20))
	s.disconnected(at(21))
	check(31, 30*time.Second)
	s.disconnected(at(40))
	check(41, 0)
	// A proxy that comes back soon leaves no gap.
	s.connected(at(44))
	check(45, 44*time.Second)
	s.disconnected(at(50))
	s.connected(at(56))
	check(60, 4*time.Second)
}
