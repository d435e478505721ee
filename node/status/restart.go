package status

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// IsSidecar reports whether an init container keeps running beside the pod's other containers.
func IsSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// ShouldRestart reports whether a container that ended with exitCode is to be started again. A container's own rules come before
// its own policy, and that before the pod's. Init containers are told apart by init: for them the pod's Always means OnFailure.
func ShouldRestart(pod *v1.Pod, c *v1.Container, init bool, exitCode int) bool {
	for _, rule := range c.RestartPolicyRules {
		if rule.Action == v1.ContainerRestartRuleActionRestart && matches(rule.ExitCodes, int32(exitCode)) {
			return true
		}
	}
	policy := v1.ContainerRestartPolicy(pod.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	} else if init && policy == v1.ContainerRestartPolicyAlways {
		policy = v1.ContainerRestartPolicyOnFailure
	}
	switch policy {
	case v1.ContainerRestartPolicyNever:
		return false
	case v1.ContainerRestartPolicyOnFailure:
		return exitCode != 0
	default:
		return true
	}
}

func matches(on *v1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if on == nil {
		return false
	}
	in := slices.Contains(on.Values, code)
	return in == (on.Operator == v1.ContainerRestartRuleOnExitCodesOpIn)
}
