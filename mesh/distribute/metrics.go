package distribute

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	proxies    prometheus.Gauge
	resources  *prometheus.GaugeVec
	responses  *prometheus.CounterVec
	rejections *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	byType := []string{"type"}
	m := &metrics{
		proxies: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_distribute_proxies", Help: "Proxies connected to the control plane.",
		}),
		resources: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "weft_distribute_resources", Help: "Mesh resources held for proxies.",
		}, byType),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_distribute_responses_total", Help: "Responses sent to proxies.",
		}, byType),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weft_distribute_rejections_total", Help: "Responses that a proxy rejected.",
		}, byType),
	}
	if reg != nil {
		reg.MustRegister(m.proxies, m.resources, m.responses, m.rejections)
	}
	return m
}
