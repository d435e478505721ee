// Package balance chooses the endpoint that a request goes to and counts what each endpoint has in flight. The count is exact: an
// endpoint never holds more requests than its backend's concurrency limit, and a draining endpoint gets none. The activator and
// the proxy call it; it knows nothing of HTTP and imports neither of them.
package balance
