package status

import v1 "k8s.io/api/core/v1"

// QOS is the quality of service class of a pod: Guaranteed when every container limits CPU and memory to what it requests,
// BestEffort when none says anything, else Burstable.
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	guaranteed, any := true, false
	check := func(c *v1.Container) {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			limit, hasLimit := c.Resources.Limits[name]
			request, hasRequest := c.Resources.Requests[name]
			if !hasRequest {
				request = limit // the API defaults a missing request to the limit
			}
			any = any || hasLimit && !limit.IsZero() || hasRequest && !request.IsZero()
			guaranteed = guaranteed && hasLimit && !limit.IsZero() && request.Cmp(limit) == 0
		}
	}
	for i := range pod.Spec.InitContainers {
		check(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		check(&pod.Spec.Containers[i])
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	default:
		return v1.PodQOSBurstable
	}
}
