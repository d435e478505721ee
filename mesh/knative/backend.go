package knative

import (
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/mesh/config"
)

// portH2C is the name that a container port has when the container speaks HTTP/2 with prior knowledge.
const portH2C = "h2c"

// CompileBackend turns a Revision into the Backend that requests for it go to. Every revision can be at zero, so each one parks.
func CompileBackend(rev *servingv1.Revision) *config.Backend {
	backend := &config.Backend{
		Name:       config.RevisionBackend(rev.Namespace, rev.Name),
		Protocol:   protocol(rev),
		Activation: &config.Activation{},
		Timeouts: &config.Timeouts{
			RequestMs:       milliseconds(rev.Spec.TimeoutSeconds),
			ResponseStartMs: milliseconds(rev.Spec.ResponseStartTimeoutSeconds),
			IdleMs:          milliseconds(rev.Spec.IdleTimeoutSeconds),
		},
		Revision: &config.Revision{
			Namespace:     rev.Namespace,
			Service:       rev.Labels[serving.ServiceLabelKey],
			Configuration: rev.Labels[serving.ConfigurationLabelKey],
			Name:          rev.Name,
		},
	}
	if limit := rev.Spec.ContainerConcurrency; limit != nil && *limit > 0 {
		backend.Concurrency = uint32(*limit)
	}
	return backend
}

func protocol(rev *servingv1.Revision) config.Backend_Protocol {
	for _, port := range rev.Spec.GetContainer().Ports {
		if port.Name == portH2C {
			return config.Backend_H2C
		}
	}
	return config.Backend_HTTP1
}

// milliseconds of a number of seconds, none being no bound.
func milliseconds(seconds *int64) uint64 {
	if seconds == nil || *seconds <= 0 {
		return 0
	}
	return uint64(*seconds) * uint64(time.Second/time.Millisecond)
}
