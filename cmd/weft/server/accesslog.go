package server

import (
	meshconfig "github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/serving/config"
)

// requestLog says what config-observability wants the proxy to write about requests; nil is nothing.
func requestLog(store *config.Store) func() *meshconfig.AccessLog {
	return func() *meshconfig.AccessLog {
		o := store.Load().Observability
		if !o.RequestLog {
			return nil
		}
		return &meshconfig.AccessLog{Name: meshconfig.RequestLog, Template: o.RequestLogTemplate, Probes: o.ProbeRequestLog}
	}
}
