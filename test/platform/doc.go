// Package platform starts and stops a whole `weft up` for the end-to-end tests and the benchmarks: with a state directory, ports,
// a bridge and networks of its own, so that nothing else on the machine is disturbed. Only tests and benchmarks import it.
package platform
