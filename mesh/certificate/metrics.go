package certificate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	expiryDesc = prometheus.NewDesc("weft_certificate_expiry_seconds",
		"Time until a certificate expires; negative when it has.", []string{"certificate"}, nil)
	unknownDesc = prometheus.NewDesc("weft_tls_unknown_names_total",
		"TLS handshakes refused because no certificate is for the name that the client asked for.", nil, nil)
)

var _ prometheus.Collector = (*Table)(nil)

// Describe implements prometheus.Collector.
func (t *Table) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	ch <- unknownDesc
}

// Collect implements prometheus.Collector.
func (t *Table) Collect(ch chan<- prometheus.Metric) {
	for name, end := range t.expiries() {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, time.Until(end).Seconds(), name)
	}
	ch <- prometheus.MustNewConstMetric(unknownDesc, prometheus.CounterValue, float64(t.unknown.Load()))
}
