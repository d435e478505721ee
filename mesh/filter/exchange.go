package filter

import (
	"sync/atomic"
	"time"

	"github.com/weft-dev/weft/activator"
	"github.com/weft-dev/weft/mesh/balance"
	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// Handler answers a request. An error means that it has not been answered, or that the answer was cut (engine.ErrCut).
type Handler interface {
	Handle(x *Exchange) error
}

// Exchange is one request on its way through the filters. It belongs to the goroutine that handles the request, unless a field says
// otherwise.
type Exchange struct {
	engine.Exchange

	// Backend is where the request goes, and Settings are the backend's at the time of routing.
	Backend  *Backend
	Settings *Settings
	// Endpoint is the instance that the request went to last; nil while it has gone to none.
	Endpoint *balance.Endpoint
	// Parked is set while the request waits for room at an instance. It may be read concurrently.
	Parked atomic.Bool
}

// Engine is the part of the exchange that the engine knows.
func (x *Exchange) Engine() *engine.Exchange { return &x.Exchange }

// Backend is a set of equal instances at run time.
type Backend struct {
	// Name is that of the configuration resource.
	Name string
	// Gate admits requests to the instances.
	Gate *activator.Gate
	// Measure counts the requests.
	Measure *telemetry.Backend
}

// Settings are how to treat the requests to a backend. They are immutable.
type Settings struct {
	Protocol engine.Protocol
	// Request bounds the whole request, ResponseStart the time to the first byte of the response, Idle the gap between bytes. Zero
	// means no bound.
	Request, ResponseStart, Idle time.Duration
	// Labels name what the backend belongs to.
	Labels telemetry.Labels
}
