package config

import (
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// The config maps that are checked like upstream's but have no effect: Weft logs in its own way, runs once per machine, and does not
// use cert-manager. An installation that brings them keeps working.
const (
	CertManagerName    = "config-certmanager"
	LeaderElectionName = "config-leader-election"
	LoggingName        = "config-logging"
	TracingName        = "config-tracing"
)

// acceptedNames lists them.
func acceptedNames() []string {
	return []string{CertManagerName, LeaderElectionName, LoggingName, TracingName}
}

// checkAccepted reports what is wrong with the data of a map that has no effect.
func checkAccepted(name string, data map[string]string) error {
	v := &values{data: data}
	switch name {
	case LeaderElectionName:
		checkLeaderElection(v)
	case LoggingName:
		checkLogging(v)
	case CertManagerName:
		v.read([]string{"issuerRef", "clusterLocalIssuerRef", "systemInternalIssuerRef"}, func(raw string) error {
			return yaml.Unmarshal([]byte(raw), &struct{ Name, Kind, Group string }{})
		})
	}
	return v.err()
}

// maxBuckets is upstream's limit.
const maxBuckets = 10

func checkLeaderElection(v *values) {
	var ignored time.Duration
	for _, key := range []string{"leaseDuration", "renewDeadline", "retryPeriod", "lease-duration", "renew-deadline", "retry-period"} {
		v.duration(&ignored, key)
	}
	buckets := int64(1)
	v.int64(&buckets, "buckets")
	v.check(buckets >= 1 && buckets <= maxBuckets, "buckets: value must be between 1 <= %d <= %d", buckets, maxBuckets)
}

func checkLogging(v *values) {
	levels := []string{"", "debug", "info", "warn", "error", "dpanic", "panic", "fatal"}
	for key, level := range v.data {
		if component, ok := strings.CutPrefix(key, "loglevel."); ok && component != "" {
			v.check(slices.Contains(levels, strings.ToLower(level)), "%s: invalid logging level: %v", key, level)
		}
	}
}
