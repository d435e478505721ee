// Package server wires a platform on one machine: the embedded control plane, the controllers of serving, mesh and autoscaler, the
// node agent, and the supervision of weft-proxy. It is the one list in which parts are put together by hand. Command weft up calls it.
package server
