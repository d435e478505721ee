package proxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-dev/weft/activator"
	"github.com/weft-dev/weft/mesh/balance"
	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/engine"
	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// backend is a backend at run time. It is made by the first resource that names it, whichever that is, so that routes hold a
// pointer and endpoints and settings change without touching them.
type backend struct {
	filter.Backend

	set *balance.Set
	// settings is nil until the control plane defines the backend.
	settings atomic.Pointer[filter.Settings]
	// references is guarded by the registry's mu: one for each resource that names the backend.
	references int
}

// backends is the registry of all backends by name.
type backends struct {
	metrics  *telemetry.Metrics
	reporter *telemetry.Reporter

	// mu guards byName and the references of the backends in it.
	mu     sync.Mutex
	byName map[string]*backend
}

func newBackends(metrics *telemetry.Metrics, reporter *telemetry.Reporter) *backends {
	return &backends{metrics: metrics, reporter: reporter, byName: make(map[string]*backend)}
}

// retain returns the backend of a name and counts one reference to it.
func (r *backends) retain(name string) *backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.byName[name]
	if !ok {
		b = r.make(name)
		r.byName[name] = b
	}
	b.references++
	return b
}

// release takes a reference back. A backend without any is forgotten; requests on it go on.
func (r *backends) release(b *backend) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.references--; b.references > 0 {
		return
	}
	delete(r.byName, b.Name)
	r.reporter.Remove(b.Measure.Load)
	r.metrics.Remove(b.Measure)
}

// find returns a backend or nil.
func (r *backends) find(name string) *backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName[name]
}

func (r *backends) make(name string) *backend {
	measure := r.metrics.Backend(name, r.reporter.Wake)
	set := balance.NewSet(balance.LeastRequest{}, func(address string) io.Closer { return engine.NewUpstream(address) })
	r.reporter.Add(measure.Load)
	return &backend{
		Backend: filter.Backend{Name: name, Gate: activator.NewGate(set, measure.Load), Measure: measure}, set: set,
	}
}

// define takes a backend's settings into use.
func (b *backend) define(c *config.Backend) {
	belongs := labels(c)
	b.Measure.Label(belongs)
	settings := &filter.Settings{
		Labels:        belongs,
		Request:       milliseconds(c.GetTimeouts().GetRequestMs()),
		ResponseStart: milliseconds(c.GetTimeouts().GetResponseStartMs()),
		Idle:          milliseconds(c.GetTimeouts().GetIdleMs()),
	}
	if c.GetProtocol() == config.Backend_H2C {
		settings.Protocol = engine.H2C
	}
	b.settings.Store(settings)
	capacity := -1
	if c.GetActivation() != nil {
		capacity = int(c.GetActivation().GetQueueCapacity())
	}
	b.Gate.SetCapacity(capacity)
	b.Gate.SetLimit(int64(c.GetConcurrency()))
}

// undefine makes new requests fail; those here go on.
func (b *backend) undefine() {
	b.settings.Store(nil)
	b.Gate.SetCapacity(-1)
}

// labels of a revision's backend come with it; those of a Service are in its name.
func labels(c *config.Backend) telemetry.Labels {
	if rev := c.GetRevision(); rev != nil {
		return telemetry.Labels{
			Namespace: rev.GetNamespace(), Service: rev.GetService(), Configuration: rev.GetConfiguration(), Revision: rev.GetName(),
		}
	}
	if parts := strings.Split(c.GetName(), "/"); len(parts) >= 3 && parts[0] == "service" {
		return telemetry.Labels{Namespace: parts[1], Service: parts[2]}
	}
	return telemetry.Labels{}
}

func milliseconds(ms uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(ms, most)) * time.Millisecond
}

// update takes endpoints into use.
func (b *backend) update(endpoints []*config.Endpoint) {
	targets := make([]balance.Target, 0, len(endpoints))
	for _, e := range endpoints {
		targets = append(targets, balance.Target{
			Address: net.JoinHostPort(e.GetAddress(), strconv.Itoa(int(e.GetPort()))),
			IP:      e.GetAddress(), Pod: e.GetPod(), Draining: e.GetDraining(),
		})
	}
	b.Gate.Update(targets)
}

// restoreAfter is how long an instance that was drained stays so without word from the control plane that it is going.
const restoreAfter = 30 * time.Second

// drained is an endpoint that a drain concerns.
type drained struct {
	endpoint *balance.Endpoint
	gate     *activator.Gate
}

// drain keeps new requests from a pod and returns when none is in flight there, or with ctx's error.
func (r *backends) drain(ctx context.Context, ip netip.Addr) error {
	address := ip.Unmap().String()
	r.mu.Lock()
	var found []drained
	for _, b := range r.byName {
		for _, e := range b.set.Endpoints() {
			if e.IP == address {
				e.Drain()
				found = append(found, drained{e, b.Gate})
			}
		}
	}
	r.mu.Unlock()
	if len(found) == 0 {
		return nil
	}
	defer func() { time.AfterFunc(restoreAfter, func() { restore(found) }) }()
	for _, d := range found {
		d.gate.Dispatch() // those who waited for this very instance must learn that they need another
	}
	for _, d := range found {
		if err := d.endpoint.WaitIdle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restore lets requests go again to instances that were drained and are still here.
func restore(found []drained) {
	for _, d := range found {
		if d.endpoint.Restore() {
			d.gate.Dispatch()
		}
	}
}
