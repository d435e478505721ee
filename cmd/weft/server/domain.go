package server

import (
	"os"

	"github.com/weft-dev/weft/node/pod"
)

// setClusterDomain tells Knative's types the platform's cluster domain, which no DomainMapping may be below. They look for it in this
// variable of the environment, once, and then in the machine's resolv.conf, which speaks of another cluster where the machine is a pod.
func setClusterDomain() error { return os.Setenv("CLUSTER_DOMAIN", pod.DefaultClusterDomain) }
