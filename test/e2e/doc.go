// Package e2e runs a whole platform, `weft up` with its own state directory, ports, bridge and networks, and uses it as a person
// would: with YAML, HTTP clients and the kubectl that is built in. `make e2e` builds the binaries and runs it as root.
package e2e
