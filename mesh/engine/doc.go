// Package engine speaks HTTP on sockets: a Server accepts HTTP/1.1 and HTTP/2 with prior knowledge on one port, an Upstream holds the
// connections to one instance, and an Exchange carries a request from the one to the other and the response back, streaming in
// both directions. It decides nothing: which instance, how long and how often are the proxy's filters' to say.
//
// It stands on net/http. The proxy uses it through Exchange.Forward and Server only, so that another engine can take its place. It
// imports no other package of Weft.
package engine
