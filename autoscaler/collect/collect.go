// Package collect receives load reports: it serves the LoadService (mesh/telemetry) to the proxies and hands each report to a Sink at
// once, on the goroutine of the stream that it came on. It also knows since when loads have been known without a gap, because
// silence means "no load" only while somebody is there to speak. The wiring in autoscaler registers it with a gRPC server; it
// imports no Kubernetes client.
package collect

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-dev/weft/mesh/telemetry"
)

// reconnect is how long proxies may be gone without the knowledge of loads having a gap.
const reconnect = 5 * time.Second

// Sink takes reports. Report is called from one goroutine per proxy and must not block: wakes come this way. received is when the
// report arrived.
type Sink interface {
	Report(report *telemetry.LoadReport, received time.Time)
	// Gone tells that a proxy's stream has ended, so that what it had in flight no longer counts.
	Gone(proxy string)
}

// Server is the LoadService.
type Server struct {
	telemetry.UnimplementedLoadServiceServer
	sink   Sink
	logger *slog.Logger
	// stopped ends all streams when it is closed.
	stopped chan struct{}
	stop    func()

	// mu guards what is below.
	mu sync.Mutex
	// streams counts the open ones.
	streams int
	// since is when the present time without a gap began; lost is when the last stream ended.
	since, lost time.Time
}

// New returns a Server that reports to sink.
func New(sink Sink, logger *slog.Logger) *Server {
	stopped := make(chan struct{})
	return &Server{sink: sink, logger: logger, stopped: stopped, stop: sync.OnceFunc(func() { close(stopped) })}
}

// Run ends all streams when ctx ends, so that the gRPC server can stop.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.stop()
	return nil
}

// Observed is for how long the loads have been known without a gap; 0 while no proxy is connected.
func (s *Server) Observed(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == 0 {
		return 0
	}
	return now.Sub(s.since)
}

// Report serves one proxy until it goes, or until the server stops.
func (s *Server) Report(stream grpc.BidiStreamingServer[telemetry.LoadReport, telemetry.LoadReportResponse]) error {
	s.connected(time.Now())
	defer func() { s.disconnected(time.Now()) }()
	received := make(chan error, 1)
	go func() { received <- s.receive(stream) }()
	// When the server stops, returning ends the stream, and with it the goroutine's Recv.
	select {
	case err := <-received:
		return err
	case <-s.stopped:
		return status.Error(codes.Unavailable, "the autoscaler is stopping")
	}
}

func (s *Server) receive(stream grpc.BidiStreamingServer[telemetry.LoadReport, telemetry.LoadReportResponse]) error {
	proxy := ""
	defer func() {
		if proxy != "" {
			s.sink.Gone(proxy)
			s.logger.Info("proxy no longer reports load", "proxy", proxy)
		}
	}()
	for {
		report, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if proxy == "" {
			proxy = report.GetProxy()
			s.logger.Info("proxy reports load", "proxy", proxy)
		}
		s.sink.Report(report, time.Now())
	}
}

func (s *Server) connected(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == 0 && (s.since.IsZero() || now.Sub(s.lost) > reconnect) {
		s.since = now
	}
	s.streams++
}

func (s *Server) disconnected(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams--; s.streams == 0 {
		s.lost = now
	}
}
