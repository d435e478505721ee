package config

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/yaml"
)

// DeploymentName is the name of the config map of the Deployments of revisions.
const DeploymentName = "config-deployment"

// Affinity says how the instances of a revision are spread.
type Affinity string

// The default affinities that an administrator may choose.
const (
	NoAffinity                    Affinity = "none"
	PreferSpreadRevisionOverNodes Affinity = "prefer-spread-revision-over-nodes"
)

// Deployment shapes the Deployment of every revision. The keys of upstream's queue sidecar are accepted and checked; there is no
// such sidecar.
type Deployment struct {
	// SkipTagResolving holds the registries whose tags are used as they are.
	SkipTagResolving sets.Set[string]
	// DigestResolutionTimeout bounds the resolution of one image's tag.
	DigestResolutionTimeout time.Duration
	// ProgressDeadline is how long a Deployment may take until it counts as failed; whole seconds.
	ProgressDeadline time.Duration
	// Affinity is given to instances that ask for none.
	Affinity Affinity
	// PodIsAlwaysSchedulable says that an unschedulable instance is not a failure, because nodes will appear.
	PodIsAlwaysSchedulable bool
	// runtimeClasses maps a runtime class to the labels of the revisions that get it.
	runtimeClasses map[string]labelSelector
}

func defaultDeployment() *Deployment {
	return &Deployment{
		SkipTagResolving: sets.New("kind.local", "ko.local", "dev.local"), DigestResolutionTimeout: 10 * time.Second,
		ProgressDeadline: 10 * time.Minute, Affinity: PreferSpreadRevisionOverNodes,
	}
}

func parseDeployment(data map[string]string) (*Deployment, error) {
	d, v := defaultDeployment(), &values{data: data}
	v.duration(&d.ProgressDeadline, "progressDeadline", "progress-deadline")
	v.duration(&d.DigestResolutionTimeout, "digestResolutionTimeout", "digest-resolution-timeout")
	v.set(&d.SkipTagResolving, "registriesSkippingTagResolving", "registries-skipping-tag-resolving")
	v.bool(&d.PodIsAlwaysSchedulable, "pod-is-always-schedulable")
	v.quantity("queueSidecarCPURequest", "queueSidecarMemoryRequest", "queueSidecarEphemeralStorageRequest",
		"queueSidecarCPULimit", "queueSidecarMemoryLimit", "queueSidecarEphemeralStorageLimit",
		"queue-sidecar-cpu-request", "queue-sidecar-memory-request", "queue-sidecar-ephemeral-storage-request",
		"queue-sidecar-cpu-limit", "queue-sidecar-memory-limit", "queue-sidecar-ephemeral-storage-limit")
	affinity := string(d.Affinity)
	v.text(&affinity, "default-affinity-type")
	d.Affinity = Affinity(affinity)
	v.check(d.Affinity == NoAffinity || d.Affinity == PreferSpreadRevisionOverNodes,
		"unsupported default-affinity-type value: %q", affinity)
	v.read([]string{"runtime-class-name"}, func(raw string) error { return yaml.Unmarshal([]byte(raw), &d.runtimeClasses) })
	v.check(d.ProgressDeadline > 0, "progress-deadline cannot be a non-positive duration, was %v", d.ProgressDeadline)
	v.check(wholeSeconds(d.ProgressDeadline), "progress-deadline must be rounded to a whole second, was: %v", d.ProgressDeadline)
	v.check(d.DigestResolutionTimeout > 0,
		"digest-resolution-timeout cannot be a non-positive duration, was %v", d.DigestResolutionTimeout)
	for _, class := range slices.Sorted(maps.Keys(d.runtimeClasses)) {
		warnings := validation.NameIsDNSSubdomain(class, false)
		v.check(len(warnings) == 0, "runtime-class-name %v selector not valid DNSSubdomain: %v", class, warnings)
		_, err := labels.ValidatedSelectorFromSet(d.runtimeClasses[class].Selector)
		v.check(err == nil, "runtime-class-name %v selector invalid: %w", class, err)
	}
	return d, v.err()
}

// RuntimeClass is the runtime class of a revision with these labels, or "" for the cluster's default. The most specific selector
// wins, and the first name among equals.
func (d *Deployment) RuntimeClass(of map[string]string) string {
	return mostSpecific(d.runtimeClasses, of)
}

// labelSelector matches labels by value.
type labelSelector struct {
	Selector map[string]string `json:"selector,omitempty"`
	// Type is read for config-domain, where it may say "wildcard"; it selects nothing.
	Type string `json:"type,omitempty"`
}

func (s labelSelector) matches(of map[string]string) bool {
	for key, want := range s.Selector {
		if got, ok := of[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// mostSpecific is the name whose selector matches with the most labels; the first by name among equals, "" when none matches.
func mostSpecific(selectors map[string]labelSelector, of map[string]string) string {
	best, specificity := "", -1
	for _, name := range slices.Sorted(maps.Keys(selectors)) {
		if s := selectors[name]; len(s.Selector) > specificity && s.matches(of) {
			best, specificity = name, len(s.Selector)
		}
	}
	return best
}
