package probe

import v1 "k8s.io/api/core/v1"

// counter applies the thresholds of a probe to a row of results.
type counter struct {
	probe *v1.Probe
	kind  Kind
	// result is the present verdict; decided says that a first one was given.
	result, decided bool
	// passed says that the container has passed the probe once.
	passed bool
	last   bool
	run    int32
}

// add counts one result and reports whether the verdict changed, or was given for the first time.
func (c *counter) add(ok bool) bool {
	c.passed = c.passed || ok
	if c.run > 0 && c.last == ok {
		c.run++
	} else {
		c.last, c.run = ok, 1
	}
	need := max(c.probe.FailureThreshold, 1)
	if ok {
		need = max(c.probe.SuccessThreshold, 1)
	}
	if c.run < need {
		return false
	}
	if c.kind == Startup {
		first := !c.decided
		c.result, c.decided = ok, true
		return first
	}
	changed := c.result != ok
	c.result = ok
	return changed
}
