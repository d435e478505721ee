// Package message holds the heads of HTTP messages (RFC 9110) as the proxy passes them along: fields in the order and spelling of
// their sender, without a map and without an allocation per field. mesh/http1 reads and writes them, filters look at them and
// change them. It imports no other package of Weft.
package message
