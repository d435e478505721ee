// Package pod runs one pod: a Worker makes its sandbox and volumes, starts, probes, restarts and stops its containers, and tells
// the API. One goroutine owns all state of a pod; everything slow happens in operations whose results come back to it. What to do
// next is decided by plan, a function without I/O. node calls it. It reaches images, sandboxes and containers only through
// interfaces and must not import the packages of other parts of Weft.
package pod
