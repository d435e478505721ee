package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Labels name what a backend belongs to. Configuration and Revision are empty for a plain Kubernetes Service.
type Labels struct{ Namespace, Service, Configuration, Revision string }

func (l Labels) values() []string {
	return []string{l.Namespace, l.Service, l.Configuration, l.Revision}
}

// Metrics makes and keeps the Prometheus metrics of all backends of a proxy.
type Metrics struct {
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	coldStarts   *prometheus.CounterVec
	coldDuration *prometheus.HistogramVec
	stages       *prometheus.HistogramVec
	unrouted     *prometheus.CounterVec
	inFlight     *prometheus.Desc
	parked       *prometheus.Desc

	clock *Clock
	cold  *ColdStarts

	// mu guards backends.
	mu       sync.Mutex
	backends map[*Backend]struct{}
}

var _ prometheus.Collector = (*Metrics)(nil)

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	labels := []string{"namespace", "service", "configuration", "revision"}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_requests_total", Help: "Requests answered, by class of the response code.",
		}, append([]string{"code_class"}, labels...)),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weft_request_duration_seconds", Help: "Time from the arrival of a request to the end of its response, parking included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, labels),
		coldStarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_cold_starts_total", Help: "Times that a backend at zero was started for a request and answered.",
		}, labels),
		coldDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weft_cold_start_duration_seconds", Help: "Time from the first parked request to the first byte of a response.",
			Buckets: []float64{.05, .075, .1, .15, .2, .3, .5, .75, 1, 2, 5, 10, 30, 60},
		}, labels),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weft_cold_start_stage_seconds", Help: "Duration of the stages of cold starts: wake, endpoint, answer.",
			Buckets: []float64{.001, .005, .01, .025, .05, .075, .1, .15, .2, .3, .5, 1, 2, 5, 10, 30},
		}, []string{"stage"}),
		unrouted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_requests_unrouted_total", Help: "Requests that matched no backend, by reason.",
		}, []string{"reason"}),
		inFlight: prometheus.NewDesc("weft_requests_in_flight", "Requests at an instance now.", labels, nil),
		parked:   prometheus.NewDesc("weft_requests_parked", "Requests waiting for room at an instance now.", labels, nil),
		clock:    NewClock(), cold: &ColdStarts{}, backends: make(map[*Backend]struct{}),
	}
	collectors := []prometheus.Collector{m.requests, m.duration, m.coldStarts, m.coldDuration, m.stages, m.unrouted, m}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// ColdStarts are the last cold starts of all backends.
func (m *Metrics) ColdStarts() *ColdStarts { return m.cold }

// Unrouted returns the counter of requests that matched no backend for a reason.
func (m *Metrics) Unrouted(reason string) prometheus.Counter {
	return m.unrouted.WithLabelValues(reason)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.inFlight
	ch <- m.parked
}

// Collect implements prometheus.Collector. Backends without a request so far are left out: thousands of idle services would
// otherwise be thousands of zeros per scrape.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for b := range m.backends {
		parked := b.Load.Waiting()
		present := b.Load.Present()
		// handles come when the first request ends; until then it is the one that waits for an instance that people look for.
		if b.handles.Load() == nil && present == 0 {
			continue
		}
		values := b.labels.Load().values()
		ch <- prometheus.MustNewConstMetric(m.inFlight, prometheus.GaugeValue, float64(max(present-parked, 0)), values...)
		ch <- prometheus.MustNewConstMetric(m.parked, prometheus.GaugeValue, float64(parked), values...)
	}
}

// Backend measures the requests of one backend.
type Backend struct {
	Load *Load

	metrics *Metrics
	labels  atomic.Pointer[Labels]
	// handles is nil until the first request, so that an idle backend costs no time series.
	handles atomic.Pointer[handles]
}

// handles are the resolved time series of one backend: no label is looked up per request.
type handles struct {
	classes  [6]prometheus.Counter
	duration prometheus.Observer
}

// Backend returns the measures of a backend; wake is called when the autoscaler must be told at once. Remove ends them.
func (m *Metrics) Backend(name string, wake func()) *Backend {
	b := &Backend{metrics: m}
	b.labels.Store(&Labels{})
	b.Load = &Load{clock: m.clock, wake: wake}
	b.Load.cold = &coldTracker{backend: name, all: m.cold, done: b.coldStarted}
	b.Load.rebase(time.Now())
	m.mu.Lock()
	m.backends[b] = struct{}{}
	m.mu.Unlock()
	return b
}

// Label names what the backend belongs to. It is called when that is known or changes, before the first request counts.
func (b *Backend) Label(labels Labels) {
	if *b.labels.Load() == labels {
		return
	}
	b.drop()
	b.labels.Store(&labels)
	b.Load.Name.Store(&RevisionName{Namespace: labels.Namespace, Revision: labels.Revision})
}

// Remove drops the time series of a backend that is gone.
func (m *Metrics) Remove(b *Backend) {
	m.mu.Lock()
	delete(m.backends, b)
	m.mu.Unlock()
	b.drop()
}

// drop deletes the time series; the next request makes new ones.
func (b *Backend) drop() {
	h := b.handles.Swap(nil)
	if h == nil {
		return
	}
	m, values := b.metrics, b.labels.Load().values()
	for class := range h.classes {
		m.requests.DeleteLabelValues(append([]string{codeClass(class)}, values...)...)
	}
	m.duration.DeleteLabelValues(values...)
	m.coldStarts.DeleteLabelValues(values...)
	m.coldDuration.DeleteLabelValues(values...)
}

// Start counts a request that arrived at t.
func (b *Backend) Start(t time.Time) { b.Load.Start(t) }

// End counts a request that arrived at start and ended at end with a status; zero means that the client left without an answer.
func (b *Backend) End(status int, start, end time.Time) {
	b.Load.End(end)
	h := b.handles.Load()
	if h == nil {
		h = b.resolve()
	}
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	h.classes[class].Inc()
	h.duration.Observe(end.Sub(start).Seconds())
}

func (b *Backend) resolve() *handles {
	values := b.labels.Load().values()
	h := &handles{duration: b.metrics.duration.WithLabelValues(values...)}
	for class := range h.classes {
		h.classes[class] = b.metrics.requests.WithLabelValues(append([]string{codeClass(class)}, values...)...)
	}
	b.handles.Store(h)
	return h
}

// codeClass names the class of a status code; class 0 are requests whose client left before the answer.
func codeClass(class int) string {
	return [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}[class]
}

func (b *Backend) coldStarted(s ColdStart) {
	values := b.labels.Load().values()
	b.metrics.coldStarts.WithLabelValues(values...).Inc()
	b.metrics.coldDuration.WithLabelValues(values...).Observe(seconds(s.ParkedAt, s.FirstByteAt))
	if s.WakeSentAt != 0 {
		b.metrics.stages.WithLabelValues("wake").Observe(seconds(s.ParkedAt, s.WakeSentAt))
		b.metrics.stages.WithLabelValues("endpoint").Observe(seconds(s.WakeSentAt, s.EndpointAt))
	}
	b.metrics.stages.WithLabelValues("answer").Observe(seconds(s.EndpointAt, s.FirstByteAt))
}

func seconds(from, to int64) float64 { return time.Duration(max(to-from, 0)).Seconds() }
