// Package autoscaler scales revisions: it receives what the proxies report, decides by Knative's pod autoscaler algorithm, and
// patches Deployments. cmd/weft and cmd/autoscaler add it to a manager and register the load service that it returns with their gRPC
// server. The parts: collect receives reports, window averages them, settings reads annotations and config maps, kpa decides,
// scale carries decisions out and reports them, hpa leaves those of its class to Kubernetes. It must not import the node or the embedded control plane: it sees a
// Kubernetes API and nothing else. How scaling to zero differs from Knative's, and why, is in the documentation of package kpa.
package autoscaler

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/weft-dev/weft/autoscaler/collect"
	"github.com/weft-dev/weft/autoscaler/scale"
	"github.com/weft-dev/weft/mesh/telemetry"
	"github.com/weft-dev/weft/serving/config"
)

// Options of the autoscaler.
type Options struct {
	// Config is where config-autoscaler and config-deployment are read. Required.
	Config *config.Store
	// Logger is slog.Default() by default.
	Logger *slog.Logger
	// Registerer gets the metrics; without it there are none.
	Registerer prometheus.Registerer
}

// Wake is the history of one start from zero.
type Wake = scale.Wake

// Insight is what is measured of a revision.
type Insight = scale.Insight

// Service is the autoscaler's side towards the proxies. It is a telemetry.LoadServiceServer.
type Service struct {
	*collect.Server
	scaler *scale.Scaler
}

var _ telemetry.LoadServiceServer = (*Service)(nil)

// WakeLog returns the last 256 starts from zero, oldest first, for benchmarks and diagnosis.
func (s *Service) WakeLog() []Wake { return s.scaler.WakeLog() }

// Look returns what is measured of a revision now, and whether the revision is known.
func (s *Service) Look(revision types.NamespacedName) (Insight, bool) {
	return s.scaler.Look(revision, time.Now())
}

// AddToManager adds the autoscaler to mgr, whose scheme must know the types of autoscaling.internal.knative.dev/v1alpha1, autoscaling/v2,
// apps/v1 and v1. It runs as long as mgr does. The caller registers the Service with its gRPC server.
func AddToManager(mgr manager.Manager, options Options) (*Service, error) {
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	patcher, err := scale.NewClient(mgr.GetConfig())
	if err != nil {
		return nil, err
	}
	queue := &scale.Queue{}
	// The Scaler asks the server for how long loads are known, and the server hands it the loads.
	var server *collect.Server
	scaler := scale.New(scale.Options{
		Patcher: patcher, Observed: func(now time.Time) time.Duration { return server.Observed(now) },
		Changed: queue.Changed, Logger: options.Logger,
	})
	server = collect.New(scaler, options.Logger)
	if options.Registerer != nil {
		if err := options.Registerer.Register(scale.NewMetrics(scaler)); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	if err := scale.SetUp(mgr, scaler, queue, options.Config, options.Logger); err != nil {
		return nil, err
	}
	for name, run := range map[string]manager.RunnableFunc{"scaler": scaler.Run, "load service": server.Run} {
		if err := mgr.Add(run); err != nil {
			return nil, fmt.Errorf("adding the %s: %w", name, err)
		}
	}
	return &Service{Server: server, scaler: scaler}, nil
}
