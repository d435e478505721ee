package pod

import (
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/status"
)

// The numbers by which kubelet turns thousandths of a processor into cgroup values.
const (
	sharesPerCPU   = 1024
	minShares      = 2
	maxShares      = 262144
	quotaPeriod    = 100_000
	minQuota       = 1_000
	oomGuaranteed  = -997
	oomBestEffort  = 1000
	milliPerCPU    = 1000
	oomLeastInside = 3
)

// resources computes the cgroup values of a container as kubelet does.
func resources(pod *v1.Pod, c *v1.Container, memoryCapacity int64) container.Resources {
	request, hasRequest := c.Resources.Requests[v1.ResourceCPU]
	limit, hasLimit := c.Resources.Limits[v1.ResourceCPU]
	if !hasRequest {
		request = limit
	}
	r := container.Resources{
		CPUShares: shares(request.MilliValue()), MemoryLimit: c.Resources.Limits.Memory().Value(),
		OOMScoreAdj: oomScore(pod, c, memoryCapacity),
	}
	if hasLimit && !limit.IsZero() {
		r.CPUPeriod = quotaPeriod
		r.CPUQuota = max(limit.MilliValue()*quotaPeriod/milliPerCPU, minQuota)
	}
	return r
}

func shares(milli int64) uint64 {
	return uint64(min(max(milli*sharesPerCPU/milliPerCPU, minShares), maxShares))
}

// oomScore makes the kernel kill containers in the order of what they promised: those without requests first, and among the others
// those that asked for the smallest part of the machine.
func oomScore(pod *v1.Pod, c *v1.Container, memoryCapacity int64) int {
	switch status.QOS(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memoryCapacity <= 0 {
		return oomBestEffort - 1
	}
	score := int(1000 - 1000*c.Resources.Requests.Memory().Value()/memoryCapacity)
	return min(max(score, oomLeastInside), oomBestEffort-1)
}
