// Package supervise keeps one long-lived process running beside this one: weft-proxy. The process has a session of its own and
// survives the death of its supervisor, which adopts it at the next start instead of interrupting the traffic that it carries.
// cmd/weft calls it. It knows nothing of Kubernetes and imports no other package of Weft.
package supervise
