package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
)

const (
	// reportInterval is the autoscaler's bucket.
	reportInterval = time.Second
	// A new stream is tried quickly: parked requests wait for it when weft restarts.
	firstRetry = 20 * time.Millisecond
	maxRetry   = time.Second
)

// Reporter tells the autoscaler the load of all revisions, every second and at once on a wake.
type Reporter struct {
	proxy  string
	client LoadServiceClient
	log    *slog.Logger
	// wakes has room for one: any number of wakes before the next report are told by that report.
	wakes chan struct{}

	// mu guards loads.
	mu    sync.Mutex
	loads map[*Load]struct{}
}

// NewReporter returns a reporter that calls itself proxy.
func NewReporter(proxy string, client LoadServiceClient, log *slog.Logger) *Reporter {
	return &Reporter{proxy: proxy, client: client, log: log, wakes: make(chan struct{}, 1), loads: make(map[*Load]struct{})}
}

// Add begins to report a load, from when it names a revision.
func (r *Reporter) Add(l *Load) {
	r.mu.Lock()
	r.loads[l] = struct{}{}
	r.mu.Unlock()
}

// Remove ends the reports of a load.
func (r *Reporter) Remove(l *Load) {
	r.mu.Lock()
	delete(r.loads, l)
	r.mu.Unlock()
}

// Wake has the reporter send at once what Load.Cold has noted. It never blocks.
func (r *Reporter) Wake() {
	select {
	case r.wakes <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends. It connects again whenever the stream ends.
func (r *Reporter) Run(ctx context.Context) error {
	retry := firstRetry
	for {
		begun := time.Now()
		err := r.stream(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is the one good end of a stream
		}
		r.log.Debug("load report stream ended", "error", err)
		if time.Since(begun) > maxRetry {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
		retry = min(2*retry, maxRetry)
	}
}

// stream reports over one stream until it ends.
func (r *Reporter) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.client.Report(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- drain(stream) }()

	// What happened before is of no use to an autoscaler that may have just started; what is here now is sent at once, and with it
	// the wish for instances that an earlier stream may have lost.
	r.rebase()
	if err := r.send(stream, false); err != nil {
		cancel()
		return errors.Join(err, <-ended)
	}
	ticker := time.NewTicker(reportInterval)
	defer ticker.Stop()
	for {
		onlyWakes := false
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
		case <-r.wakes:
			onlyWakes = true
		}
		if err := r.send(stream, onlyWakes); err != nil {
			cancel()
			return errors.Join(err, <-ended)
		}
	}
}

// drain reads until the server ends the stream.
func drain(stream grpc.BidiStreamingClient[LoadReport, LoadReportResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("ended by the server")
			}
			return err
		}
	}
}

func (r *Reporter) rebase() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.loads {
		l.rebase(now)
	}
}

// send sends the loads that have something to tell, or those among them that wait for an instance.
func (r *Reporter) send(stream grpc.BidiStreamingClient[LoadReport, LoadReportResponse], onlyWakes bool) error {
	report := &LoadReport{Proxy: r.proxy}
	var woken []*Load
	now := time.Now()
	r.mu.Lock()
	for l := range r.loads {
		if onlyWakes && !l.waking.Load() {
			continue
		}
		load := l.take(now)
		if load == nil {
			continue
		}
		report.Revisions = append(report.Revisions, load)
		if load.Wake {
			woken = append(woken, l)
		}
	}
	r.mu.Unlock()
	if len(report.Revisions) == 0 {
		return nil
	}
	if err := stream.Send(report); err != nil {
		return err
	}
	sent := time.Now()
	for _, l := range woken {
		l.cold.wakeSent(sent)
	}
	return nil
}
