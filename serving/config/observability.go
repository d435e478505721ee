package config

import (
	"text/template"
	"time"
)

// ObservabilityName is the name of the config map of logs, metrics and traces.
const ObservabilityName = "config-observability"

// Observability configures logs, metrics and traces.
type Observability struct {
	// VarLogCollection asks that /var/log of the instances be collected.
	VarLogCollection bool
	// LogURLTemplate makes a revision's status.logUrl; ${REVISION_UID} stands for its UID.
	LogURLTemplate string
	// RequestLog writes a line per request by RequestLogTemplate, and ProbeRequestLog one per probe too.
	RequestLog         bool
	ProbeRequestLog    bool
	RequestLogTemplate string
	// Metrics are the platform's own; RequestMetrics those of the users' requests.
	Metrics        Export
	RequestMetrics Export
	Tracing        Tracing
	// Profiling serves pprof.
	Profiling bool
	// RuntimeExportInterval is how often the Go runtime is measured.
	RuntimeExportInterval time.Duration
}

// Export says where metrics go: protocol none, prometheus, http/protobuf or grpc.
type Export struct {
	Protocol string
	Endpoint string
	// Interval of 0 leaves it to the exporter, 60 s.
	Interval time.Duration
}

// Tracing says where traces go: protocol none, http/protobuf, grpc or stdout.
type Tracing struct {
	Protocol string
	Endpoint string
	// SamplingRate is the share of requests that is traced, in [0, 1].
	SamplingRate float64
}

const defaultRequestLog = `{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", ` +
	`"requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize": "{{.Response.Size}}", ` +
	`"userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", ` +
	`"referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "protocol": "{{.Request.Proto}}"}, ` +
	`"traceId": "{{.TraceID}}"}`

func parseObservability(data map[string]string) (*Observability, error) {
	v := &values{data: data}
	o := &Observability{RequestLogTemplate: defaultRequestLog, RuntimeExportInterval: 15 * time.Second}
	v.bool(&o.VarLogCollection, "logging.enable-var-log-collection")
	v.text(&o.LogURLTemplate, "logging.revision-url-template")
	v.text(&o.RequestLogTemplate, "logging.request-log-template")
	v.bool(&o.RequestLog, "logging.enable-request-log")
	v.bool(&o.ProbeRequestLog, "logging.enable-probe-request-log")
	o.Metrics, o.RequestMetrics = parseExport(v, ""), parseExport(v, "request-")
	o.parseTracing(v)
	profiling := "disabled"
	v.oneOf(&profiling, []string{"enabled", "disabled"}, "runtime-profiling")
	o.Profiling = profiling == "enabled"
	v.duration(&o.RuntimeExportInterval, "runtime-export-interval")
	v.check(o.RuntimeExportInterval >= 0, "runtime-export-interval %v should be greater than zero", o.RuntimeExportInterval)
	v.check(!o.RequestLog || o.RequestLogTemplate != "",
		"%q was set to true, but no %q was specified", "logging.enable-request-log", "logging.request-log-template")
	if _, err := template.New("requestLog").Parse(o.RequestLogTemplate); err != nil {
		v.reject("parsing %q: %w", "logging.request-log-template", err)
	}
	return o, v.err()
}

func parseExport(v *values, prefix string) Export {
	e := Export{Protocol: "none"}
	key := prefix + "metrics-protocol"
	v.text(&e.Protocol, key)
	v.text(&e.Endpoint, prefix+"metrics-endpoint")
	v.duration(&e.Interval, prefix+"metrics-export-interval")
	switch e.Protocol {
	case "grpc", "http/protobuf":
		v.check(e.Endpoint != "", "%smetrics-endpoint should be set when protocol is %q", prefix, e.Protocol)
	case "none":
		v.check(e.Endpoint == "", "%smetrics-endpoint should not be set when protocol is %q", prefix, e.Protocol)
	case "prometheus":
	default:
		v.reject("%s: unsupported protocol %q", key, e.Protocol)
	}
	v.check(e.Interval >= 0, "%smetrics-export-interval %v should be greater than zero", prefix, e.Interval)
	return e
}

func (o *Observability) parseTracing(v *values) {
	o.Tracing.Protocol = "none"
	v.text(&o.Tracing.Protocol, "tracing-protocol")
	v.text(&o.Tracing.Endpoint, "tracing-endpoint")
	v.float(&o.Tracing.SamplingRate, "tracing-sampling-rate")
	switch o.Tracing.Protocol {
	case "grpc", "http/protobuf":
		v.check(o.Tracing.Endpoint != "", "tracing-endpoint should be set for protocol %q", o.Tracing.Protocol)
	case "none", "stdout":
		v.check(o.Tracing.Endpoint == "", "tracing-endpoint should not be set when protocol is %q", o.Tracing.Protocol)
	default:
		v.reject("tracing-protocol: unsupported protocol %q", o.Tracing.Protocol)
	}
	v.check(o.Tracing.SamplingRate >= 0 && o.Tracing.SamplingRate <= 1,
		"tracing-sampling-rate %f should be between zero and one", o.Tracing.SamplingRate)
}
