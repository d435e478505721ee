package telemetry_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weft-dev/weft/mesh/telemetry"
)

// autoscaler is a LoadService that hands on what it gets.
type autoscaler struct {
	telemetry.UnimplementedLoadServiceServer
	reports chan *telemetry.LoadReport
}

func (a *autoscaler) Report(stream grpc.BidiStreamingServer[telemetry.LoadReport, telemetry.LoadReportResponse]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		a.reports <- r
	}
}

// listen starts an autoscaler at a socket.
func listen(t *testing.T, socket string) (*autoscaler, *grpc.Server) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &autoscaler{reports: make(chan *telemetry.LoadReport, 100)}
	s := grpc.NewServer()
	telemetry.RegisterLoadServiceServer(s, a)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return a, s
}

// next is the next report that matches.
func (a *autoscaler) next(t *testing.T, what string, match func(*telemetry.RevisionLoad) bool) *telemetry.RevisionLoad {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case report := <-a.reports:
			for _, r := range report.GetRevisions() {
				if report.GetProxy() == "me" && match(r) {
					return r
				}
			}
		case <-deadline:
			t.Fatalf("%s: no such report within 10 s", what)
		}
	}
}

func TestReporter(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	scaler, server := listen(t, socket)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Millisecond, Multiplier: 1, MaxDelay: time.Millisecond}}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	metrics, err := telemetry.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := telemetry.NewReporter("me", telemetry.NewLoadServiceClient(conn), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()

	b := metrics.Backend("revision/ns/rev", r.Wake)
	b.Label(telemetry.Labels{Namespace: "ns", Revision: "rev"})
	r.Add(b.Load)
	idle := metrics.Backend("revision/ns/idle", r.Wake)
	idle.Label(telemetry.Labels{Namespace: "ns", Revision: "idle"})
	r.Add(idle.Load)

	// A parked request at zero is told at once, and not with the next second.
	begun := time.Now()
	b.Start(begun)
	b.Load.Parked()
	b.Load.Cold()
	got := scaler.next(t, "wake", func(l *telemetry.RevisionLoad) bool { return l.GetWake() })
	if got.GetNamespace() != "ns" || got.GetRevision() != "rev" || got.GetParked() != 1 || got.GetInFlight() != 0 || got.GetAverageConcurrency() <= 0 {
		t.Errorf("wake: %v", got)
	}

	// A control plane that starts again learns of the wish at once.
	server.Stop()
	scaler, _ = listen(t, socket)
	scaler.next(t, "wake after a restart", func(l *telemetry.RevisionLoad) bool { return l.GetWake() && l.GetParked() == 1 })

	b.Load.Warm()
	b.Load.Unparked()
	scaler.next(t, "in flight", func(l *telemetry.RevisionLoad) bool {
		return !l.GetWake() && l.GetInFlight() == 1 && l.GetParked() == 0 && l.GetAverageConcurrency() > 0.9
	})
	b.Load.Answered(time.Now())
	b.End(200, begun, time.Now())
	scaler.next(t, "zero after the end", func(l *telemetry.RevisionLoad) bool {
		if l.GetRevision() != "rev" {
			t.Errorf("a revision without load was reported: %v", l)
		}
		return l.GetAverageConcurrency() == 0 && l.GetRequests() == 0
	})
	cold := metrics.ColdStarts().Last()
	if len(cold) != 1 || cold[0].WakeSentAt < cold[0].ParkedAt || cold[0].FirstByteAt < cold[0].EndpointAt {
		t.Errorf("cold starts: %+v", cold)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m, err := telemetry.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := telemetry.NewMetrics(registry); err == nil {
		t.Error("registered twice")
	}
	b := m.Backend("revision/ns/rev", func() {})
	b.Label(telemetry.Labels{Namespace: "ns", Service: "svc", Configuration: "cfg", Revision: "rev"})
	now := time.Now()
	for _, status := range []int{200, 204, 404, 503, 0} {
		b.Start(now)
		b.End(status, now, now.Add(time.Millisecond))
	}
	b.Start(now)
	b.Start(now)
	b.Load.Parked()
	want := `
# HELP weft_requests_in_flight Requests at an instance now.
# TYPE weft_requests_in_flight gauge
weft_requests_in_flight{configuration="cfg",namespace="ns",revision="rev",service="svc"} 1
# HELP weft_requests_parked Requests waiting for room at an instance now.
# TYPE weft_requests_parked gauge
weft_requests_parked{configuration="cfg",namespace="ns",revision="rev",service="svc"} 1
# HELP weft_requests_total Requests answered, by class of the response code.
# TYPE weft_requests_total counter
weft_requests_total{code_class="1xx",configuration="cfg",namespace="ns",revision="rev",service="svc"} 0
weft_requests_total{code_class="2xx",configuration="cfg",namespace="ns",revision="rev",service="svc"} 2
weft_requests_total{code_class="3xx",configuration="cfg",namespace="ns",revision="rev",service="svc"} 0
weft_requests_total{code_class="4xx",configuration="cfg",namespace="ns",revision="rev",service="svc"} 1
weft_requests_total{code_class="5xx",configuration="cfg",namespace="ns",revision="rev",service="svc"} 1
weft_requests_total{code_class="none",configuration="cfg",namespace="ns",revision="rev",service="svc"} 1
`
	names := []string{"weft_requests_in_flight", "weft_requests_parked", "weft_requests_total"}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	m.Remove(b)
	if n, err := testutil.GatherAndCount(registry, names...); err != nil || n != 0 {
		t.Errorf("%d series are left, %v", n, err)
	}
}
