package route

import (
	"time"

	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

// Settings decide where a route can be reached.
type Settings struct {
	// Config is the administrator's configuration.
	Config *config.Snapshot
	// Port is that of public http URLs, HTTPSPort that of https ones; zero and the scheme's own number leave it out.
	Port, HTTPSPort int
	// LocalGateway is the host that the cluster's DNS answers with for the names of routes; empty means DefaultLocalGateway.
	LocalGateway string
}

// DefaultLocalGateway is the Service behind which the proxies listen for the cluster.
const DefaultLocalGateway = "local-gateway.weft-system.svc.cluster.local"

// rolloutDuration is how long a rollout of the route takes.
func (s Settings) rolloutDuration(r *servingv1.Route) time.Duration {
	if d := r.RolloutDuration(); d > 0 {
		return d
	}
	return time.Duration(s.Config.Network.RolloutSeconds) * time.Second
}
