// Package engine speaks HTTP on sockets: a Server accepts HTTP/1.1 and HTTP/2 on one port, plain or with TLS, an Upstream holds the
// connections to one instance, and an Exchange carries a request from the one to the other and the response back, streaming in both
// directions. It decides nothing: which instance, how long and how often are the proxy's filters' to say.
//
// HTTP/1 is its own, by mesh/http1: a connection has one goroutine, which reads the request, writes it to the instance and passes the
// response on, without an allocation; a second one sends a request body that is not there at once. HTTP/2 is net/http's, on both sides.
// The proxy uses it. It imports mesh/http1 and mesh/message only.
package engine
