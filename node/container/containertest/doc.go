// Package containertest helps to test what runs containers: Fake stands in for the runtime in the node agent's tests, and
// Conformance is the behaviour that every container.Runtime owes its callers, run against the real runtime and against Fake.
// Only tests import it.
package containertest
