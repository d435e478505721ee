// Package http1 reads and writes HTTP/1.0 and 1.1 (RFC 9112): heads, bodies and their framing. It is strict where two readers of the
// same bytes could disagree, because a proxy and an instance that see different requests are how requests are smuggled. It writes each
// message anew and never passes raw bytes of a head on. In steady state it allocates nothing.
//
// mesh/engine uses it. It imports mesh/message only.
package http1
